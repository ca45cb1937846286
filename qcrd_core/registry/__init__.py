"""Versions of a student under a model's name, the champion, and the nightly decision."""
