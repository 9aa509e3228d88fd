"""Learngene methods: what is trained, what is kept, and what grows from it."""
