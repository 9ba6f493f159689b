"""Artifacts on disk: a model file, its manifest and its test vectors."""
