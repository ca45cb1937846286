"""Thin Prefect tasks: each takes a reference, calls the core once and returns a reference."""
