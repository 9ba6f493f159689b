"""Options that the commands share, and the terminal."""
