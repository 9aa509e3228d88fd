"""Learngene methods: what each one trains, extracts, and expands to a descendant.

`learngenes` holds the public calls and the table of methods; each method is a file.
"""
