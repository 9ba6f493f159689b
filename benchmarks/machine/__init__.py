"""What the computer is, and what else it did during a measurement."""
