"""One run: its paths, the context that every stage needs, and locks against concurrent work."""
