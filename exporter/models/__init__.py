"""The architecture of residual networks, as data and as PyTorch modules."""
