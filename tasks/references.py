"""What tasks pass to each other: references to a run and its tables, never the tables themselves.

Prefect draws an edge from the task that returned an object to every task that takes it, so the
flow's variables are the run's graph. Prefect also looks into dataclasses and pydantic models, and
would connect any two references that share a configuration. It does not look into attrs classes, so
references are attrs classes. The store still decides what is done: a reference only says where to
look.
"""

from collections.abc import Mapping
from typing import Any

import attrs

from qcrd_core.config.run import RunConfig
from qcrd_core.run.context import RunContext


@attrs.frozen
class Reference:
    """A run, after some of its tasks are done."""

    config: RunConfig
    run_id: str

    @property
    def context(self) -> RunContext:
        """The run, opened."""
        return RunContext.open(self.config, self.run_id)


@attrs.frozen
class Run(Reference):
    """A prepared run: its questions and configuration are in the store."""


@attrs.frozen
class Rationales(Reference):
    """The teacher's samples of a run."""

    counts: Mapping[str, Any]
    """What `qcrd_core.stages.sampling.sample_teacher` counts."""


@attrs.frozen
class Votes(Reference):
    """Tables `votes` and `polarity` of a run, and `condensed` if it condenses."""

    counts: Mapping[str, float | None]
    """What `vote_summary` counts and, after condensing, `summarize_condensed`."""


@attrs.frozen
class Checkpoint(Reference):
    """A student, with the state needed to train it further."""

    round: int
    """Round that trained it. -1 before the first round, when only its tokenizer exists."""


@attrs.frozen
class Negatives(Reference):
    """Rationales that an earlier round's student wrote."""

    round: int
    """Round that trains on them."""


@attrs.frozen
class Scores(Reference):
    """Table `scores` of a round, and the discriminator that wrote it."""

    round: int
    """Round that trains on them."""


@attrs.frozen
class Validation(Reference):
    """The validation answers of a round's student."""

    round: int
    """Round that trained the student."""


@attrs.frozen
class Student(Reference):
    """The run's best student, tested and published."""

    result: Mapping[str, Any]
    """Chosen round, validation accuracy, test numbers."""
