"""Decode, fit and normalise images, ahead of their use."""
