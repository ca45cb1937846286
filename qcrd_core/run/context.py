"""Run context for every stage and job: configuration, store, paths, inputs."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl

from data_schemas import Curation, Feedback, Metrics, Questions
from qcrd_core.config.models import ImportedModel
from qcrd_core.config.run import RunConfig
from qcrd_core.config.teacher import OneTeacher
from qcrd_core.data.spec import DatasetSpec
from qcrd_core.run.numbering import first_numbers, number_in_run
from qcrd_core.run.paths import RunPaths
from qcrd_core.run.records import Environment
from qcrd_core.store.store import Store


@dataclass(frozen=True)
class RunTeacher:
    """A teacher of an open run."""

    settings: OneTeacher
    generation: str
    """Fingerprint of its samples."""
    first_number: int
    """What the run counts as the number of its first sample; see `qcrd_core.run.numbering`."""


@dataclass(frozen=True)
class RunContext:
    """An open run."""

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
            StoreError: If the store's URL is not that of a store.
        """
        return cls(config, Store(config.run.store, config.run.scratch), RunPaths(run_id))

    @property
    def scratch(self) -> Path:
        """Local folder for this run's logs and job inputs."""
        return self.config.run.scratch / "runs" / self.paths.run_id

    def log(self, name: str) -> Path:
        """Log file of a job."""
        return self.scratch / f"{name}.log"

    def read_spec(self) -> DatasetSpec:
        """The data set's specification, as stored when the run began."""
        return self.store.read_json(self.paths.dataset, DatasetSpec)

    def read_questions(self, split: str) -> pl.DataFrame:
        """Table `questions` of one split, as stored when the run began."""
        frame = self.store.read_table(self.paths.questions, Questions)
        return frame.filter(pl.col("split") == split)

    @cached_property
    def environment(self) -> Environment:
        """What the run recorded when it began."""
        return self.store.read_json(self.paths.environment, Environment)

    @cached_property
    def teachers(self) -> tuple[RunTeacher, ...]:
        """All teachers of the run, as they were when it began."""
        settings, model = self.config.teachers, self.config.teacher.model
        imported = model.generation if isinstance(model, ImportedModel) else None
        generations = self.environment.generations(imported)
        first = first_numbers(generations, [each.num_samples for each in settings])
        return tuple(
            RunTeacher(each, generation, first[generation])
            for each, generation in zip(settings, generations, strict=True)
        )

    def read_marks(self, mark: str) -> pl.DataFrame:
        """question_id and sample_idx of the rationales with one curation mark.

        Args:
            mark: keep or reject.

        Returns:
            Keys, as stored when the run began, with the run's numbers.
        """
        marks: pl.DataFrame = Curation.create_empty()
        if self.store.exists(self.paths.curation):
            marks = self.store.read_table(self.paths.curation, Curation)
        if marks.height and self.config.teacher.others:
            first = {each.generation: each.first_number for each in self.teachers}
            marks = marks.with_columns(number_in_run(first))
        return marks.filter(pl.col("mark") == mark).select("question_id", "sample_idx")

    def read_feedback(self) -> pl.DataFrame:
        """Right answers that people sent for captured questions.

        Returns:
            Table `feedback`, one row per question, as stored when the run began.
        """
        if not self.store.exists(self.paths.feedback):
            return Feedback.create_empty()
        return self.store.read_table(self.paths.feedback, Feedback)

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
            stage: The stage that measured them.
            round_: Round; -1 before the first.
            values: Numbers by name; None if undefined.
            part: Name of the part, if it differs from the stage's.
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


@dataclass(frozen=True)
class RunJob:
    """Inputs of every job of a run: enough to open the run in another process."""

    config: RunConfig
    """The run's configuration, already validated when the run was started."""
    run_id: str
    """The run."""

    @property
    def context(self) -> RunContext:
        """The run, opened here."""
        return RunContext.open(self.config, self.run_id)


@contextmanager
def timed(context: RunContext, stage: str, round_: int = -1) -> Iterator[dict[str, float]]:
    """Measure a block and store metric `<stage>_seconds` of stage timing, if the block succeeds.

    Values that the block puts into the yielded mapping are stored too, as `<stage>_<name>`.

    After a crash, the numbers cover only the last start.
    """
    start = time.monotonic()
    more: dict[str, float] = {}
    yield more
    numbers = {"seconds": time.monotonic() - start, **more}
    named = {f"{stage}_{name}": value for name, value in numbers.items()}
    context.write_metrics("timing", round_, named, part=f"timing-{stage}")
