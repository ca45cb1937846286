"""The bench: methods x seeds x shares of the data. Each cell is a whole run."""
