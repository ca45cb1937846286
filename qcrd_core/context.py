"""What a child process needs to find its run: configuration, store, paths."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qcrd_core.config import RunConfig
from qcrd_core.runs import RunPaths
from qcrd_core.store import Store


@dataclass(frozen=True)
class RunContext:
    """One run, opened."""

    config: RunConfig
    store: Store
    paths: RunPaths

    @classmethod
    def open(cls, config: RunConfig, run_id: str) -> "RunContext":
        """Open a run's store.

        Args:
            config: The run's configuration.
            run_id: From `RunConfig.run_id`.

        Returns:
            The context.

        Raises:
            StoreError: If the store's URL names no store.
        """
        return cls(config, Store(config.run.store, config.run.scratch), RunPaths(run_id))

    def payload(self, **more: Any) -> dict[str, Any]:
        """JSON-able argument of a job; `from_payload` reads it in the child."""
        return {"config": self.config.model_dump(mode="json"), "run_id": self.paths.run_id, **more}

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any]) -> "RunContext":
        """Open the run that `payload` named."""
        return cls.open(RunConfig.model_validate(payload["config"]), payload["run_id"])
