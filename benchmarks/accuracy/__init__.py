"""Predictions, and the differences between the predictions of two runs."""
