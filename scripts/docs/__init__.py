"""Programs that build the documentation and hold it to its bounds."""
