"""Everything of qcrd that is true without an orchestrator. Never imports Prefect."""
