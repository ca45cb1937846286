"""The Prefect flows. Each is the DAG only; the work is in `qcrd_core`."""
