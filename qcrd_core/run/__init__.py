"""One run: where its files are, what every stage needs of it, which processes may work on it."""
