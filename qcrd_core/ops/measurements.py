"""Read a run's measurements for `qcrd plan`: tokens, speed, seconds and bytes.

Each job of a round notes its pace between its first and last progress report. This separates the
job's start, whose time is fixed, from its work, which grows with the number of questions.
"""

import statistics
from dataclasses import dataclass

import polars as pl

from data_schemas import Metrics, Questions, Rationales, Scores
from qcrd_core.config.run import RunConfig
from qcrd_core.errors import DataError
from qcrd_core.run.paths import RunPaths
from qcrd_core.run.records import Environment
from qcrd_core.store.parts import open_folder
from qcrd_core.store.store import Store
from qcrd_core.teacher.budget import Tokens
from qcrd_core.teacher.generation import rationales_folder

_PER_ROUND = ("scores/", "negatives/")
_GROWING = ("questions.parquet", "votes.parquet", "polarity.parquet")


@dataclass(frozen=True)
class Growth:
    """A quantity with a fixed part and a part that grows with the number of training questions."""

    fixed: float = 0.0
    per_question: float = 0.0

    def at(self, num_questions: int) -> float:
        """The quantity for a number of questions."""
        return self.fixed + self.per_question * num_questions

    def __add__(self, other: "Growth") -> "Growth":
        """The sum of two quantities."""
        return Growth(self.fixed + other.fixed, self.per_question + other.per_question)


@dataclass(frozen=True)
class Trained:
    """Seconds and bytes of a run's rounds."""

    seconds_per_step: float
    """Seconds of an optimiser step."""
    round_seconds: Growth
    """Other seconds per round: starts of processes, negatives, scores, validation, export."""
    once_seconds: Growth
    """Seconds outside the rounds: vote, tokenizers, test."""
    round_bytes: Growth
    """Bytes per round in the store: negatives and scores."""
    once_bytes: Growth
    """Bytes outside the rounds: questions, votes, the student, the report."""


@dataclass(frozen=True)
class Measurements:
    """The measurements of one run."""

    run_id: str
    num_samples: int
    tokens: Tokens
    """Tokens of all samples."""
    tokens_per_second: float
    """Sampled tokens per second and GPU."""
    start_seconds: float
    """Seconds until the teacher answered, which includes the start of a local server."""
    bytes_per_sample: float
    """Size of the Parquet parts, divided by the number of samples."""
    trained: Trained | None
    """None if the run is not complete."""


def read_measurements(store: Store, paths: RunPaths, config: RunConfig) -> Measurements | None:
    """Read the measurements of a run that has sampled its teacher.

    Args:
        store: The store that holds the run.
        paths: Paths of the run.
        config: Configuration of the run.

    Returns:
        The measurements; None if the run's server did not count tokens, or its samples are gone.
    """
    metrics = store.read_table(paths.metrics, Metrics)
    numbers = _values(metrics, "sampling", -1)
    if not numbers["num_tokens"]:
        return None
    environment = store.read_json(paths.environment, Environment)
    folder = f"{rationales_folder(environment.dataset)}/generation={environment.generation}"
    num_stored = open_folder(store, folder, Rationales).num_rows
    if not num_stored:
        return None
    size = sum(file.num_bytes for file in store.part_files(folder))
    took = _values(metrics, "timing", -1).get("sample_teacher_seconds", numbers["seconds"])
    return Measurements(
        run_id=paths.run_id,
        num_samples=int(numbers["num_samples"]),
        tokens=Tokens(int(numbers["num_prompt_tokens"]), int(numbers["num_tokens"])),
        tokens_per_second=numbers["num_tokens"] / numbers["seconds"] / numbers["num_gpus"],
        start_seconds=took - numbers["seconds"],
        bytes_per_sample=size / num_stored,
        trained=_trained(store, paths, config, metrics),
    )


def _trained(
    store: Store, paths: RunPaths, config: RunConfig, metrics: pl.DataFrame
) -> Trained | None:
    if not store.exists(paths.result):
        return None
    questions = store.read_table(paths.questions, Questions)
    num_questions = questions.filter(split="train").height
    rounds = range(config.training.num_rounds)
    paces = metrics.filter(stage="train", name="questions_per_second")["value"].drop_nulls()
    seconds_per_step = config.training.global_batch_size / statistics.median(paces.to_list())
    steps = config.training.steps_in_round(num_questions) * seconds_per_step
    each = Growth()
    for round_ in rounds:
        timing = _values(metrics, "timing", round_)
        num_scored = open_folder(store, paths.scores(round_), Scores).num_rows
        fixed = timing["train_seconds"] - steps + timing.get("answer_validation_seconds", 0.0)
        each += Growth(fixed)
        each += _job(timing, "sample_negatives", num_questions, num_questions)
        each += _job(timing, "score_rationales", num_scored, num_questions)
    timing = _values(metrics, "timing", -1)
    growing = timing["vote_seconds"] + timing.get("make_tokenizers_seconds", 0.0)
    tests = metrics.filter(stage="timing", name="answer_test_seconds")["value"].to_list()
    round_bytes, once_bytes = _bytes(store, paths, num_questions)
    num_rounds = len(rounds)
    return Trained(
        seconds_per_step=seconds_per_step,
        round_seconds=Growth(each.fixed / num_rounds, each.per_question / num_rounds),
        once_seconds=Growth(
            timing.get("check_student_seconds", 0.0) + sum(tests), growing / num_questions
        ),
        round_bytes=Growth(per_question=round_bytes / num_rounds / num_questions),
        once_bytes=once_bytes,
    )


def _job(timing: dict[str, float], stage: str, num_units: int, num_questions: int) -> Growth:
    """Seconds of one job. Its work on `num_units`, at the noted pace, grows; the rest is fixed."""
    seconds = timing.get(f"{stage}_seconds", 0.0)
    pace = timing.get(f"{stage}_per_second")
    # If no pace was noted (a single batch, or an older run), all of the time counts as work.
    work = seconds if pace is None else min(seconds, num_units / pace)
    return Growth(seconds - work, work / num_questions)


def _bytes(store: Store, paths: RunPaths, num_questions: int) -> tuple[float, Growth]:
    sizes = {
        file.path.removeprefix(f"{paths.root}/"): file.num_bytes for file in store.files(paths.root)
    }
    rounds = sum(size for name, size in sizes.items() if name.startswith(_PER_ROUND))
    growing = sum(size for name, size in sizes.items() if name in _GROWING)
    fixed = sum(sizes.values()) - rounds - growing
    return rounds, Growth(fixed, growing / num_questions)


class _Numbers(dict[str, float]):
    """Numbers by name; one that a part of the metrics should have, and has not, is an error."""

    def __missing__(self, name: str) -> float:
        msg = f"Table `metrics` of the run must have {name}; got none. Estimate from another run."
        raise DataError(msg)


def _values(metrics: pl.DataFrame, stage: str, round_: int) -> _Numbers:
    rows = metrics.filter(stage=stage, round=round_).select("name", "value").drop_nulls()
    return _Numbers(rows.iter_rows())
