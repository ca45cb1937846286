"""Thin Prefect tasks: config in, one core call, a reference out."""
