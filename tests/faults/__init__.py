"""Writers that fail: calls of the system that fail or kill, and what every writer leaves then."""
