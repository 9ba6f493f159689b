"""Predictions, and how the predictions of two runs differ."""
