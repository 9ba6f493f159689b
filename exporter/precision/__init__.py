"""Precisions: a row in a table, a transform of the graph, and the gate that each has to pass."""
