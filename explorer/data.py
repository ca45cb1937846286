"""The data of the pages, cached in memory until the store changes."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import polars as pl

from qcrd_core.errors import StoreError
from qcrd_core.inspect.find import condition, matching_keys
from qcrd_core.inspect.summary import Summary, summarize
from qcrd_core.inspect.view import View, open_view
from qcrd_core.store.parts import collect

_KEPT = 16
_KEPT_BYTES = 1 << 30
"""Ten million keys need half a GiB."""
_OF_MARKS = {"mark", "comment"}
_Made = TypeVar("_Made")


class Explorer:
    """One store, with a cache of recent results."""

    def __init__(self, store: str, scratch: Path) -> None:
        """Open a store.

        Args:
            store: Folder or URL of the store, or of one of its runs.
            scratch: Folder that holds indexes of parts.

        Raises:
            StoreError: If there is no store.
        """
        view = open_view(store, scratch)
        self.store = view.store
        self._kept: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self._lock = Lock()

    @property
    def run_ids(self) -> list[str]:
        """Runs of the store, sorted by name."""
        return View(self.store, None).run_ids

    def view(self, run_id: str) -> View:
        """Open a run.

        Args:
            run_id: The run.

        Returns:
            The view.

        Raises:
            StoreError: If there is no such run, or it is damaged.
        """
        if run_id not in self.run_ids:
            known = ", ".join(self.run_ids) or "none"
            msg = f"{self.store} has no run {run_id!r}. Its runs: {known}."
            raise StoreError(msg)
        return View(self.store, run_id).checked()

    def summary(self, view: View) -> Summary:
        """Numbers of a run."""
        return self._once(("summary", *_state(view)), lambda: summarize(view))

    def keys(self, view: View, where: str | None) -> pl.DataFrame:
        """Keys of a run's rationales that meet a SQL condition."""
        names = set() if where is None else set(condition(where).meta.root_names())
        # A list that does not filter by marks stays cached when a curator sets a mark.
        state = _state(view) if names & _OF_MARKS else _state_but_marks(view)
        return self._once(("keys", where, *state), lambda: matching_keys(view, where))

    def scores(self, view: View) -> pl.DataFrame:
        """Counts of quality scores by round, source and polarity, in bins of a twentieth."""
        return self._once(("scores", *_state(view)), lambda: _score_bins(view))

    def vote_counts(self, view: View) -> pl.DataFrame:
        """Questions, and those with a right majority, by the votes for the majority answer."""
        return self._once(("votes", *_state_but_marks(view)), lambda: _vote_counts(view))

    def slices(self, view: View) -> pl.DataFrame:
        """Accuracy of the newest test predictions by template."""
        return self._once(("slices", *_state(view)), lambda: _slices(view))

    def _once(self, key: tuple[Any, ...], make: Callable[[], _Made]) -> _Made:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                kept: _Made = self._kept[key]
                return kept
        made = make()
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > _KEPT or (
                len(self._kept) > 1 and sum(map(_size, self._kept.values())) > _KEPT_BYTES
            ):
                self._kept.popitem(last=False)
        return made


def _size(kept: Any) -> int:
    return int(kept.estimated_size()) if isinstance(kept, pl.DataFrame) else 0


def _state(view: View) -> tuple[Any, ...]:
    """A value that changes when a table of the run changes."""
    places = [f"datasets/{each.dataset}/curation" for each in view.generations]
    return (*_state_but_marks(view), _listing(view, places))


def _state_but_marks(view: View) -> tuple[Any, ...]:
    paths = view.paths
    places = [generation.folder for generation in view.generations]
    places += [paths.votes, *(f"{paths.root}/{n}" for n in ("scores", "negatives", "predictions"))]
    return (view.run_id, _listing(view, places))


def _listing(view: View, places: list[str]) -> int:
    return hash(tuple(view.store.part_files(place) for place in places))


def _score_bins(view: View) -> pl.DataFrame:
    # A score of exactly 1 belongs to the last bin.
    bins = (pl.col("quality_score") * 20).floor().clip(upper_bound=19) / 20
    keys = ["round", "source", "polarity"]
    scored = view.scores().filter(pl.col("quality_score").is_not_null())
    counted = scored.group_by(*keys, low=bins).agg(count=pl.len())
    return (
        collect(counted, view.name).with_columns(pl.col(pl.Enum).cast(pl.String)).sort(*keys, "low")
    )


def _vote_counts(view: View) -> pl.DataFrame:
    known = pl.col("is_majority_correct")
    counted = (
        view.votes()
        .group_by("vote_count")
        .agg(num_questions=pl.len(), num_with_gold=known.count(), num_correct=known.sum())
    )
    return collect(counted.sort("vote_count"), view.name)


def _slices(view: View) -> pl.DataFrame:
    test = view.predictions().filter(pl.col("split") == "test", pl.col("is_correct").is_not_null())
    newest = test.filter(pl.col("round") == pl.col("round").max())
    named = newest.join(view.questions().select("question_id", "template"), on="question_id")
    counted = named.drop_nulls("template").group_by("template")
    share = pl.col("is_correct").mean()
    return collect(
        counted.agg(num_questions=pl.len(), share=share).sort("share", "template"), view.name
    )
