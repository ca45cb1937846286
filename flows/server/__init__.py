"""Starts and stops Prefect's server and worker, and applies the deployments."""
