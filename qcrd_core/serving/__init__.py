"""A student behind an OpenAI-compatible HTTP server."""
