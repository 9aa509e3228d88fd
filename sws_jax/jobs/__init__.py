"""Jobs: from a config's fields to runs that are trained one after the other."""
