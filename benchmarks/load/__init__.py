"""Load tests and cold starts, as the parent sees them."""
