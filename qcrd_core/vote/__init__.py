"""Self-consistency: the majority vote, the polarity of rationales, and curation marks."""
