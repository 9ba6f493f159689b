"""The backends. Each file or folder holds one library."""
