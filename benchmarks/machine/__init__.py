"""The machine and its state during a measurement."""
