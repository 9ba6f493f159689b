"""Precisions: the table, the conversion of graphs, and the accuracy gate of each precision."""
