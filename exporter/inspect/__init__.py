"""Descriptions of artifacts, and predictions for images."""
