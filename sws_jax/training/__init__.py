"""The training step, what it keeps, and how networks are scored."""
