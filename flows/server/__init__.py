"""What runs Prefect's server, worker and deployments."""
