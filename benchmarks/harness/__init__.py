"""The parent of all measurements: which networks, in which order, in which processes."""
