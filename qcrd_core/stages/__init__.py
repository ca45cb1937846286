"""The stages of a run: each reads and writes the store, and does nothing that is done already."""
