"""Jobs of the student: the inputs of each, and the function that a child process runs.

The stages import this module, so it loads no engine; the functions import it in the child process.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qcrd_core.config.method import Infer
from qcrd_core.run.context import RunJob
from qcrd_core.runtime.processes import Emit


def check_student(job: RunJob, emit: Emit) -> dict[str, int]:
    """Run `qcrd_core.student.prepare.check_student`."""
    from qcrd_core.student import prepare

    return prepare.check_student(job, emit)


@dataclass(frozen=True)
class MakeTokenizers(RunJob):
    """Making the tokenizers of a run, before round 0."""

    texts: Path
    """Parquet file with column `text`: training questions, labels and rationales."""


def make_tokenizers(job: MakeTokenizers, emit: Emit) -> dict[str, int]:
    """Run `qcrd_core.student.prepare.make_tokenizers`."""
    from qcrd_core.student import prepare

    return prepare.make_tokenizers(job, emit)


@dataclass(frozen=True)
class CountTokens(RunJob):
    """Measuring texts with the run's tokenizer."""

    texts: Path
    """Parquet file with column `text`, which may be null."""
    target: Path
    """Parquet file to write, with column `num_tokens`, in the order of the texts."""


def count_tokens(job: CountTokens, emit: Emit) -> None:
    """Run `qcrd_core.student.prepare.count_tokens`."""
    from qcrd_core.student import prepare

    prepare.count_tokens(job, emit)


@dataclass(frozen=True)
class SampleNegatives(RunJob):
    """Sampling the negatives of one round."""

    round: int
    """Round that trains on them."""
    checkpoint: int
    """Round whose student writes them."""


def sample_negatives(job: SampleNegatives, emit: Emit) -> dict[str, Any]:
    """Run `qcrd_core.student.negatives.sample_negatives`."""
    from qcrd_core.student import negatives

    return negatives.sample_negatives(job, emit)


@dataclass(frozen=True)
class AnswerSplit(RunJob):
    """Answering one split with one round's student."""

    round: int
    """Round whose student answers."""
    split: str
    """validation or test."""
    infer: Infer | None = None
    """Kind of inference if it is not the run's."""

    @property
    def stage(self) -> str:
        """Name of the stage in tables `metrics` and `predictions`."""
        return self.split if self.infer is None else f"{self.split}-{self.infer}"


def answer_split(job: AnswerSplit, emit: Emit) -> dict[str, Any]:
    """Run `qcrd_core.student.predict.answer_split`."""
    from qcrd_core.student import predict

    return predict.answer_split(job, emit)


@dataclass(frozen=True)
class AnswerFile:
    """Answering a file of questions with a published student."""

    student: Path
    """The student's folder."""
    file: Path
    """JSON lines, JSON, CSV or Parquet."""
    target: Path
    """Parquet file to write."""
    batch_size: int
    """Questions per batch."""


def answer_file(job: AnswerFile, emit: Emit) -> dict[str, Any]:
    """Run `qcrd_core.student.predict.answer_file`."""
    from qcrd_core.student import predict

    return predict.answer_file(job, emit)
