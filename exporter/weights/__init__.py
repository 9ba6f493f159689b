"""Sources of weights, and the safe reading of foreign files, without running code from them."""
