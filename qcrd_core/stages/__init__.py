"""The stages of a run: each reads and writes the store, and skips work that is already done."""
