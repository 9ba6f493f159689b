"""Precisions: the table, the conversion of graphs, and the accuracy check of each precision."""
