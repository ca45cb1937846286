"""All checks of one run or one import."""

from dataclasses import dataclass

import polars as pl

from qcrd_core.errors import DataError
from qcrd_core.inspect.audit.similar import Duplicates, Leakage, find_duplicates, find_leakage
from qcrd_core.inspect.audit.votes import Sweep, sweep_samples
from qcrd_core.inspect.summary import bin_votes
from qcrd_core.inspect.view import View
from qcrd_core.store.parts import collect
from qcrd_core.vote.majority import pseudo_label_precision, vote

_COLUMNS = (
    "question_id", "sample_idx", "source", "answer", "cumulative_logprob", "num_tokens",
    "rationale",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Audit:
    """What was found."""

    name: str
    folder: str
    """Where `write_audit` puts its page: the run, or the generation."""
    num_rationales: int
    votes: pl.DataFrame
    """Table `votes`."""
    bins: pl.DataFrame
    """What `bin_votes` counts by agreement."""
    precision: pl.DataFrame
    """What `pseudo_label_precision` says."""
    sweep: Sweep
    duplicates: Duplicates
    leakage: Leakage


def audit(view: View, generation: str | None = None) -> Audit:
    """Run all checks.

    Args:
        view: A run; or a store, of which one generation is voted on anew, ties abstaining.
        generation: Fingerprint, where the store has several.

    Returns:
        What was found.

    Raises:
        DataError: If it is not clear which generation is meant, or a part is damaged.
    """
    rows = _rationales(view, generation)
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
        precision=pseudo_label_precision(votes),
        sweep=sweep_samples(rows, asked),
        duplicates=find_duplicates(rows),
        leakage=find_leakage(questions),
    )


def _rationales(view: View, generation: str | None) -> pl.DataFrame:
    names = [each.fingerprint for each in view.generations]
    chosen = [name for name in names if generation in (None, name)]
    if len(chosen) != 1:
        msg = (
            f"One generation must be audited; {view.name} has {', '.join(names) or 'none'}. Name a "
            "run, or one of them with --generation."
        )
        raise DataError(msg)
    (folder,) = [g for g in view.generations if g.fingerprint == chosen[0]]
    lazy = view.generation_folder(folder).scan()
    if view.run_id is not None:
        lazy = view.rationales().filter(pl.col("source") != "student")
    return collect(lazy.select(_COLUMNS), view.name)
