"""What every stage and job needs to find its run: configuration, store, paths, inputs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from data_schemas import Curation, Metrics, Questions
from qcrd_core.config.run import RunConfig
from qcrd_core.data.spec import DatasetSpec
from qcrd_core.run.paths import RunPaths
from qcrd_core.store.store import Store


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

    @property
    def scratch(self) -> Path:
        """Local folder for this run's logs and for what one stage hands to its job."""
        return self.config.run.scratch / "runs" / self.paths.run_id

    def read_spec(self) -> DatasetSpec:
        """The data set's specification as the run took it."""
        return DatasetSpec.model_validate(self.store.read_json(self.paths.dataset))

    def read_questions(self, split: str) -> pl.DataFrame:
        """Table `questions` of one split, as the run took them."""
        frame = self.store.read_table(self.paths.questions, Questions)
        return frame.filter(pl.col("split") == split)

    def read_marks(self, mark: str) -> pl.DataFrame:
        """question_id and sample_idx of the rationales that curators marked so.

        Args:
            mark: keep or reject.

        Returns:
            Keys, as the run found them when it began.
        """
        marks: pl.DataFrame = Curation.create_empty()
        if self.store.exists(self.paths.curation):
            marks = self.store.read_table(self.paths.curation, Curation)
        return marks.filter(pl.col("mark") == mark).select("question_id", "sample_idx")

    def write_metrics(
        self,
        stage: str,
        round_: int,
        values: Mapping[str, float | None],
        *,
        part: str | None = None,
    ) -> None:
        """Write numbers of one stage and round as a part of table `metrics`.

        Args:
            stage: Who measured.
            round_: Round; -1 before the first.
            values: Numbers by name; None where undefined.
            part: Name of the part, where it is not the stage's.
        """
        rows = [(stage, round_, 0, name, value) for name, value in values.items()]
        schema = {
            "stage": pl.String,
            "round": pl.Int32,
            "global_step": pl.Int64,
            "name": pl.String,
            "value": pl.Float64,
        }
        frame = pl.DataFrame(rows, schema=schema, orient="row")
        self.store.write_table(self.paths.metrics_part(part or stage, round_), frame, Metrics)
