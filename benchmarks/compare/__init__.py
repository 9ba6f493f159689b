"""Comparison of new results with old ones."""
