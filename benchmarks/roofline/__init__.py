"""The speed that the machine and the graph allow at most."""
