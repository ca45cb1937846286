"""Data sets: questions, prompts, answers' form. A learning problem is a *data set* here."""
