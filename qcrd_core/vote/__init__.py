"""Self-consistency: the majority answer, which rationales are positive, and curators' marks."""
