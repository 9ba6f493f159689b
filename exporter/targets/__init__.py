"""Target formats, one in each file, and the publication of artifacts."""
