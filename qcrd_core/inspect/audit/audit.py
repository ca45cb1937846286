"""Run all checks on one run or one import."""

from dataclasses import dataclass

import polars as pl

from qcrd_core.errors import DataError
from qcrd_core.inspect.audit.lengths import Lengths, find_lengths
from qcrd_core.inspect.audit.settled import replay_settled
from qcrd_core.inspect.audit.similar import Duplicates, Leakage, find_duplicates, find_leakage
from qcrd_core.inspect.audit.steps import Steps, find_steps
from qcrd_core.inspect.audit.thoughts import Thoughts, find_thoughts
from qcrd_core.inspect.audit.votes import Sweep, sweep_samples
from qcrd_core.inspect.summary import bin_votes
from qcrd_core.inspect.view import View
from qcrd_core.report.teachers import TeacherReport, teacher_report
from qcrd_core.run.records import read_run_config
from qcrd_core.store.parts import collect
from qcrd_core.vote.majority import pseudo_label_precision, vote

_COLUMNS = (
    "question_id", "sample_idx", "source", "answer", "cumulative_logprob", "num_tokens",
    "rationale", "reasoning", "status", "generation",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Audit:
    """The results of all checks."""

    name: str
    folder: str
    """Folder for the page of `write_audit`: that of the run, or of the generation."""
    num_rationales: int
    votes: pl.DataFrame
    """Table `votes`."""
    bins: pl.DataFrame
    """Result of `bin_votes` by agreement."""
    teachers: TeacherReport | None
    """How right each of several teachers is; None for one."""
    precision: pl.DataFrame
    """Result of `pseudo_label_precision`."""
    sweep: Sweep
    settled: pl.DataFrame
    """Result of `replay_settled`."""
    duplicates: Duplicates
    leakage: Leakage
    thoughts: Thoughts
    steps: Steps
    lengths: Lengths


def audit(view: View, generation: str | None = None) -> Audit:
    """Run all checks.

    Args:
        view: A run, or a store. In a store, one generation is voted on again, with abstention on
            ties.
        generation: Fingerprint of the generation, if the store has several.

    Returns:
        The results.

    Raises:
        DataError: If it is unclear which generation to audit, or a part is damaged.
    """
    rows = _rationales(view, generation)
    settings = {} if view.run_id is None else view.settings
    teachers = _teachers(view)
    questions = collect(view.questions(), view.name)
    asked = questions.filter(pl.col("question_id").is_in(rows["question_id"].unique().implode()))
    if view.run_id is None:
        votes: pl.DataFrame = vote(rows, asked, "abstain")
        folder = next(g.folder for g in view.generations if generation in (None, g.fingerprint))
    else:
        votes, folder = collect(view.votes(), view.name), view.paths.root
    return Audit(
        name=view.run_id or folder,
        folder=folder,
        num_rationales=rows.height,
        votes=votes,
        bins=bin_votes(votes, "agreement"),
        teachers=teachers,
        precision=pseudo_label_precision(votes),
        sweep=sweep_samples(rows, asked),
        # The setting that is replayed is of one teacher.
        settled=replay_settled(rows if teachers is None else rows.clear(), asked),
        duplicates=find_duplicates(rows),
        leakage=find_leakage(questions),
        thoughts=find_thoughts(rows),
        steps=find_steps(rows, asked),
        lengths=find_lengths(rows.select(view.taught)["rationale"], settings),
    )


def _teachers(view: View) -> TeacherReport | None:
    if view.run_id is None or not view.settings["teacher"].get("others"):
        return None
    config = read_run_config(view.store, view.run_id)
    return teacher_report(view.metrics(), config.teachers, config.voting.weights)


def _rationales(view: View, generation: str | None) -> pl.DataFrame:
    names = [each.fingerprint for each in view.generations]
    chosen = [name for name in names if generation in (None, name)]
    if view.run_id is not None and chosen:
        lazy = view.rationales().filter(pl.col("source") != "student")
        return collect(lazy.select(_COLUMNS), view.name)
    if len(chosen) != 1:
        msg = (
            f"It is unclear which generation to audit; {view.name} has {', '.join(names) or 'none'}"
            ". Choose one with --generation, or name a run."
        )
        raise DataError(msg)
    (folder,) = [g for g in view.generations if g.fingerprint == chosen[0]]
    return collect(view.generation_folder(folder).scan().select(_COLUMNS), view.name)
