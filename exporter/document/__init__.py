"""The output of a command as a list of blocks, and its rendering on a terminal."""
