"""The bench: methods x seeds x shares of the data, each cell a whole run, and what they show."""
