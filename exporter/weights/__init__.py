"""Where weights come from, and how a foreign file is read without running code from it."""
