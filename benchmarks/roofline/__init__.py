"""The highest speed that the machine and the graph allow."""
