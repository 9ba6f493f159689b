"""What an artifact is, and what it predicts for an image."""
