"""What the Python bindings of libraries for a GPU offer, release by release, and whether the code asks for more."""
