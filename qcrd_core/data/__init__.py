"""Data sets: questions, prompts, and the form of answers."""
