"""Checks of arrays and device tensors against the specifications of a model's inputs and outputs."""
