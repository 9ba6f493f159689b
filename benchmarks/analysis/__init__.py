"""From recorded samples to figures, warnings and a ranking."""
