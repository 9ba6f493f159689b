"""Arrays and device tensors, held against their specifications."""
