"""One target format a file, and how an artifact is published."""
