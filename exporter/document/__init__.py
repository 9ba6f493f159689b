"""What a command has to say, as a list of blocks, and the terminal that shows it."""
