"""A store, or one of its runs, as lazy tables.

`View.rows` is the table to filter and to export: every rationale with its question, its vote, its
quality score and its weight. Only tables whose columns are asked for are joined.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from data_schemas import (
    Condensed,
    Curation,
    Metrics,
    Predictions,
    Questions,
    Rationales,
    Scores,
    Table,
    Votes,
)
from qcrd_core.errors import StoreError
from qcrd_core.run.numbering import first_numbers, number_in_run
from qcrd_core.run.paths import RunPaths
from qcrd_core.run.records import Environment, check_records, read_any_settings, read_environment
from qcrd_core.store.filesystem import split_options
from qcrd_core.store.parts import Folder, open_folder
from qcrd_core.store.store import Store
from qcrd_core.teacher.generation import condensed_folder
from qcrd_core.vote.rationales import taught

_KEY = ("generation", "question_id", "sample_idx")
_QUESTION = ("split", "question", "gold_answer", "template")
_VOTE = (
    "majority_answer", "vote_count", "num_valid", "agreement", "margin", "is_tie", "abstained",
)  # fmt: skip
_SCORE = ("polarity", "quality_score", "rationale_weight")
_CURATION = ("mark", "comment")
ROW_COLUMNS = (
    *Rationales.column_names(), *_QUESTION, "is_correct", *_VOTE, "in_majority", *_SCORE,
    *_CURATION,
)  # fmt: skip
"""Columns of `View.rows`."""
RUN_COLUMNS = frozenset({*_VOTE, "in_majority", *_SCORE})
"""Columns that come from a run; they are null when a whole store is viewed."""


@dataclass(frozen=True)
class Generation:
    """Samples with the same teacher, prompt and sampling settings, or one import."""

    dataset: str
    fingerprint: str
    folder: str


@dataclass(frozen=True, eq=False)
class View:
    """A store, or one of its runs."""

    store: Store
    run_id: str | None

    @property
    def name(self) -> str:
        """The run's name, or the store's URL."""
        return self.run_id or str(self.store)

    @cached_property
    def paths(self) -> RunPaths:
        """Paths of the run."""
        if self.run_id is None:
            msg = (
                f"The target must be a run, <store>/runs/<run id>; got the store {self.store}. "
                f"Its runs: {self._run_names()}."
            )
            raise StoreError(msg)
        return RunPaths(self.run_id)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Configuration of the run as stored.

        It is not validated, so that runs of other versions of qcrd can be viewed too.
        """
        return read_any_settings(self.store, self.paths.run_id)

    @cached_property
    def environment(self) -> Environment | None:
        """What the run recorded about its environment; None before it began."""
        return read_environment(self.store, self.paths.run_id)

    @property
    def dataset(self) -> str | None:
        """Name of the run's data set; None before it began."""
        return None if self.environment is None else self.environment.dataset

    def checked(self) -> "View":
        """The same view of a run, if the run has all that a page about it needs.

        Raises:
            StoreError: If it lacks something, or a record of it is damaged.
        """
        _ = self.settings
        check_records(self.store, self.paths.run_id)
        return self

    @cached_property
    def run_ids(self) -> list[str]:
        """Runs of the store, sorted by name."""
        names = self.store.list("runs")
        return [name for name in names if self.store.exists(RunPaths(name).config)]

    @cached_property
    def generations(self) -> list[Generation]:
        """The generations of the run's teachers, in their order, or all of the store."""
        if self.run_id is not None:
            begun, teacher = self.environment, self.settings["teacher"]
            if begun is None:
                return []
            names = begun.generations(teacher.get("model", {}).get("generation"))
            return [_generation(begun.dataset, name) for name in names]
        return [
            _generation(dataset, name.removeprefix("generation="))
            for dataset in self.store.list("datasets")
            for name in self.store.list(f"datasets/{dataset}/rationales")
            if name.startswith("generation=")
        ]

    @cached_property
    def num_samples(self) -> list[int | None]:
        """K of each teacher of the run; None if its settings do not say."""
        teacher = self.settings["teacher"]
        return [each.get("num_samples") for each in (teacher, *teacher.get("others", ()))]

    @cached_property
    def first_numbers(self) -> dict[str, int]:
        """The run's number of each generation's first sample; empty for a store."""
        if self.run_id is None:
            return {}
        names = [each.fingerprint for each in self.generations]
        return first_numbers(names, [number or 0 for number in self.num_samples])

    @cached_property
    def taught(self) -> pl.Expr:
        """Column `rationale` as it is taught, by the settings of each teacher of the run.

        Reads `rationale`, `reasoning` and `generation`. In a store it is the rationale as it is.
        """
        teacher = {} if self.run_id is None else self.settings["teacher"]
        kinds = [each.get("rationale", "answer") for each in (teacher, *teacher.get("others", ()))]
        if len(set(kinds)) == 1:
            return taught(kinds[0])
        by_teacher = [
            pl.when(pl.col("generation") == each.fingerprint).then(taught(kind))
            for each, kind in zip(self.generations, kinds, strict=True)
        ]
        return pl.coalesce(*by_teacher, "rationale").alias("rationale")

    @property
    def rewrites(self) -> list[Generation]:
        """All generations of the store that `teacher.condense` made."""
        return [
            Generation(dataset, name.removeprefix("generation="), f"{folder}/{name}")
            for dataset in self.store.list("datasets")
            for folder in [condensed_folder(dataset)]
            for name in self.store.list(folder)
            if name.startswith("generation=")
        ]

    def generation_folder(self, generation: Generation) -> Folder:
        """The parts of one generation."""
        return self._folder(generation.folder, Rationales)

    def questions(self) -> pl.LazyFrame:
        """Table `questions` of the run, or of the whole store with each id once."""
        if self.run_id is not None:
            return self._scan(self.paths.questions, Questions)
        imported = [f"datasets/{name}/questions" for name in self.store.list("datasets")]
        places = [*(RunPaths(name).questions for name in self.run_ids), *imported]
        if not places:
            return Questions.create_empty().lazy()
        frames = [self._scan(place, Questions) for place in places]
        return pl.concat(frames).unique("question_id", keep="first", maintain_order=True)

    def votes(self) -> pl.LazyFrame:
        """Table `votes` of the run; empty without a run."""
        return self._run_table("votes", Votes)

    def condensed(self) -> pl.LazyFrame:
        """Table `condensed` of the run; empty without a run, and if it condensed nothing."""
        return self._run_table("condensed", Condensed)

    def scores(self) -> pl.LazyFrame:
        """Table `scores` of the run, all rounds; empty without a run."""
        return self._run_table("scores", Scores)

    def predictions(self) -> pl.LazyFrame:
        """Table `predictions` of the run, all splits and rounds; empty without a run.

        Answers by the kinds of inference in `evaluation.compare` are left out: they are second
        answers to the same test questions.
        """
        if self.run_id is None:
            return Predictions.create_empty().lazy()
        folder = f"{self.paths.root}/predictions"
        splits = ("train", "validation", "test")
        return pl.concat([self._scan(f"{folder}/{split}", Predictions) for split in splits])

    def metrics(self) -> pl.DataFrame:
        """Table `metrics` of the run."""
        return self.store.read_table(self.paths.metrics, Metrics)

    def curation(self) -> pl.LazyFrame:
        """Table `curation` of the run's data set, or of all data sets in the store."""
        names = self.store.list("datasets")
        if self.run_id is not None:
            names = [name for name in names if name == self.dataset]
        frames = [self._scan(f"datasets/{name}/curation", Curation) for name in names]
        return pl.concat(frames) if frames else Curation.create_empty().lazy()

    def rationales(self, question_ids: list[str] | None = None) -> pl.LazyFrame:
        """Table `rationales`: the teacher's or imported ones, then the students'.

        Args:
            question_ids: Return only these questions, without opening every part.

        Returns:
            The rows. For a run: the first K samples of its training questions, with the run's
            numbers, and its negatives. They include rows that answer an older text of their
            question (`prompt_hash` differs).
        """
        frames = [self.generation_folder(each).scan(question_ids) for each in self.generations]
        if self.run_id is not None:
            train = self.questions().filter(pl.col("split") == "train").select("question_id")
            frames = [
                self._of_run(frame.join(train, on="question_id", how="semi"), number)
                for frame, number in zip(frames, self.num_samples, strict=False)
            ]
        teacher = pl.concat(frames) if frames else Rationales.create_empty().lazy()
        return pl.concat([teacher, self.students(question_ids)])

    def _of_run(self, rows: pl.LazyFrame, num_samples: int | None) -> pl.LazyFrame:
        """The first K samples of a generation, with the run's numbers."""
        if num_samples is not None:
            rows = rows.filter(pl.col("sample_idx") < num_samples)
        return self._numbered(rows)

    def _numbered(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """Rows of the data set with the run's numbers, which differ only with several teachers."""
        if len(self.first_numbers) < 2:
            return rows
        return rows.with_columns(number_in_run(self.first_numbers))

    def students(self, question_ids: list[str] | None = None) -> pl.LazyFrame:
        """Table `rationales`: the students' negatives of the run, or of all runs."""
        names = self.run_ids if self.run_id is None else [self.run_id]
        folders = [self._folder(f"{RunPaths(name).root}/negatives", Rationales) for name in names]
        frames = [folder.scan(question_ids) for folder in folders]
        return pl.concat(frames) if frames else Rationales.create_empty().lazy()

    def rows(
        self, columns: Collection[str] = ROW_COLUMNS, question_ids: list[str] | None = None
    ) -> pl.LazyFrame:
        """Rationales joined with their question, vote, scores and marks.

        Args:
            columns: Columns to return; they keep the order of ROW_COLUMNS.
            question_ids: Return only these questions.

        Returns:
            One row per rationale. Enumerations such as source and status become plain text.
        """
        wanted = [name for name in ROW_COLUMNS if name in columns]
        rows = self.rationales(question_ids)
        needs = {*wanted, *(["gold_answer"] if "is_correct" in wanted else [])}
        needs |= {"majority_answer"} if "in_majority" in wanted else set()
        if needs & set(_QUESTION):
            of_question = self.questions().select("question_id", *_QUESTION)
            rows = rows.join(of_question, on="question_id", how="left")
        if needs & set(_VOTE):
            of_vote = self.votes().select("question_id", *_VOTE)
            rows = rows.join(of_vote, on="question_id", how="left")
        if needs & set(_SCORE):
            rows = self._with_scores(rows)
        if needs & set(_CURATION):
            of_curation = self._numbered(self.curation().select(*_KEY, *_CURATION))
            rows = rows.join(of_curation, on=_KEY, how="left")
        answer = pl.col("answer")
        has_gold, has_vote = (pl.col(n).is_not_null() for n in ("gold_answer", "majority_answer"))
        derived = {
            "is_correct": pl.when(has_gold).then(answer.eq_missing(pl.col("gold_answer"))),
            "in_majority": pl.when(has_vote).then(answer.eq_missing(pl.col("majority_answer"))),
        }
        rows = rows.with_columns(**{name: derived[name] for name in wanted if name in derived})
        return rows.select(wanted).with_columns(pl.col(pl.Enum).cast(pl.String))

    def _with_scores(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """Add scores of the last round, or for a student's rationale of the round it trains."""
        scores = self.scores().select("round", "question_id", "source", "sample_idx", *_SCORE)
        is_student = pl.col("source") == "student"
        scores = scores.filter(is_student | (pl.col("round") == pl.col("round").max()))
        scores = scores.with_columns(round=pl.when(is_student).then("round"))
        return rows.join(
            scores,
            on=["question_id", "source", "sample_idx", "round"],
            how="left",
            nulls_equal=True,
        )

    def _run_table(self, name: str, table: type[Table]) -> pl.LazyFrame:
        if self.run_id is None:
            return table.create_empty().lazy()
        files = {"votes": self.paths.votes, "condensed": self.paths.condensed}
        return self._scan(files.get(name, f"{self.paths.root}/{name}"), table)

    def _scan(self, rel: str, table: type[Table]) -> pl.LazyFrame:
        return self._folder(rel, table).scan()

    def _folder(self, rel: str, table: type[Table]) -> Folder:
        return open_folder(self.store, rel, table)

    def _run_names(self) -> str:
        return ", ".join(self.run_ids) or "none"


def open_view(target: str, scratch: Path = Path(".qcrd/scratch")) -> View:
    """Open a store or one of its runs.

    Args:
        target: Folder or URL of a store, or of a run below it: `<store>/runs/<run id>`.
        scratch: Folder that holds indexes of parts.

    Returns:
        The view.

    Raises:
        StoreError: If there is no store, no such run, or the run is damaged.
    """
    place, options = split_options(target)
    text = place.rstrip("/")
    root, separator, run_id = text.rpartition("/runs/")
    if separator and run_id and "/" not in run_id:
        view = View(Store(root + options, scratch), run_id)
        if not view.store.exists(view.paths.config):
            known = ", ".join(view.run_ids) or "none"
            msg = f"{view.store} has no run {run_id!r}. Its runs: {known}."
            raise StoreError(msg)
        return view.checked()
    view = View(Store(text + options, scratch), None)
    if not (view.store.exists("datasets") or view.store.exists("runs")):
        msg = (
            f"{text} is not a qcrd store: it has neither datasets/ nor runs/. Name the folder in "
            "`run.store`, or a run in it, <store>/runs/<run id>."
        )
        raise StoreError(msg)
    return view


def _generation(dataset: str, fingerprint: str) -> Generation:
    folder = f"datasets/{dataset}/rationales/generation={fingerprint}"
    return Generation(dataset, fingerprint, folder)
