"""The backends: one file or folder is one library."""
