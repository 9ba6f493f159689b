"""Residual networks, as rows of data and as PyTorch modules."""
