"""Readers of answers, one per kind; `qcrd_core.data.answers` decides which text each one reads."""
