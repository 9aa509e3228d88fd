"""Files: their paths, locks and kinds, and how they are written whole."""
