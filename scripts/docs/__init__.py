"""Programs that make files of the documentation."""
