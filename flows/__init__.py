"""The flows: the DAG alone."""
