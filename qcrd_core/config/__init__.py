"""Settings: one typed section a file, put together in `run`."""
