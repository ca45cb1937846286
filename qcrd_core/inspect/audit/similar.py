"""Find similar texts: repeated rationales of a question, and test questions that are in train.

Exact: equal except for case, punctuation and spaces. Near: the sets of neighbouring words (three
for rationales, two for questions) share at least 0.8 of their union (Jaccard). Numbers count as
words, so the same story with other numbers is another question.

All texts are compared, in bounded memory: of two texts that share 0.8, the rarest fifth plus one of
either's runs has a run in common, so only these runs of the held-out questions are indexed, and the
training questions pass by once (prefix filtering: Chaudhuri et al., ICDE 2006).
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

NEAR = 0.8

_WORDS = re.compile(r"\w+(?:[.,]\d+)*", re.UNICODE)
_RATIONALE_WORDS, _QUESTION_WORDS = 3, 2
_COUNTERS = 2**22
"""Counters of runs. Two runs that share one look less rare than they are, which costs only time."""
_TEXTS_PER_COUNT = 10_000


@dataclass(frozen=True)
class Duplicates:
    """Rationales that repeat another rationale of the same question."""

    num_questions: int
    """Number of questions with rationales."""
    num_rationales: int
    num_exact: int
    """Rationales that equal an earlier rationale of their question."""
    num_near: int
    """Further rationales that are near an earlier one."""


@dataclass(frozen=True, eq=False)
class Leakage:
    """Test and validation questions that also appear in train."""

    num_held_out: int
    found: pl.DataFrame
    """question_id, split, train_question_id (the most similar one), similarity (1 for exact)."""


def find_duplicates(rationales: pl.DataFrame) -> Duplicates:
    """Count rationales that repeat another rationale of the same question.

    Args:
        rationales: question_id, rationale (nullable), all of one source.

    Returns:
        Counts.
    """
    rows = rationales.drop_nulls("rationale")
    num_exact = num_near = 0
    grouped = rows.group_by("question_id").agg("rationale")["rationale"]
    for texts in grouped:
        words = [tuple(_words(text)) for text in texts]
        distinct = list(dict.fromkeys(words))
        num_exact += len(words) - len(distinct)
        num_near += _count_near([_shingles(text, _RATIONALE_WORDS) for text in distinct])
    return Duplicates(len(grouped), rows.height, num_exact, num_near)


def find_leakage(questions: pl.DataFrame) -> Leakage:
    """Find test and validation questions that also appear in train, exactly or nearly.

    Args:
        questions: Table `questions`, all splits.

    Returns:
        These questions, each with the most similar training question.
    """
    train = questions.filter(pl.col("split") == "train")
    held_out = questions.filter(pl.col("split") != "train")
    counts = _count_runs([held_out["question"], train["question"]])
    texts, places = [], defaultdict(list)
    for number, text in enumerate(held_out["question"]):
        runs = _question_runs(text)
        texts.append(np.fromiter(runs, np.int64, len(runs)))  # a set takes ten times as much
        for run in _rarest(runs, counts):
            places[run].append(number)
    best = _most_similar(train["question"], texts, places, counts)
    ids = train["question_id"]
    held = held_out.select("question_id", "split").rows()
    rows = [(*held[number], ids[row], value) for number, (value, row) in best.items()]
    schema = {
        "question_id": pl.String,
        "split": pl.String,
        "train_question_id": pl.String,
        "similarity": pl.Float64,
    }
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    order = ["similarity", "question_id"]
    return Leakage(held_out.height, frame.sort(order, descending=[True, False]))


def _words(text: str) -> list[str]:
    return _WORDS.findall(text.lower())


def _shingles(words: Sequence[str], length: int) -> frozenset[int]:
    """Hashes of all runs of `length` words; a shorter text is a single run.

    The hashes differ from process to process, so they must not be stored.
    """
    starts = range(max(1, len(words) - length + 1))
    return frozenset(hash(tuple(words[start : start + length])) for start in starts)


def _count_near(texts: list[frozenset[int]]) -> int:
    """Number of texts that are near an earlier one."""
    return sum(
        any(_jaccard(text, earlier) >= NEAR for earlier in texts[:number])
        for number, text in enumerate(texts)
    )


def _jaccard(a: frozenset[int], b: frozenset[int]) -> float:
    return len(a & b) / len(a | b)


def _question_runs(text: str) -> frozenset[int]:
    return _shingles(_words(text), _QUESTION_WORDS)


def _count_runs(columns: Sequence[pl.Series]) -> NDArray[np.int64]:
    """In how many texts the runs of each counter occur."""
    counts = np.zeros(_COUNTERS, np.int64)
    for column in columns:
        for start in range(0, len(column), _TEXTS_PER_COUNT):
            texts = column.slice(start, _TEXTS_PER_COUNT)
            runs = [run % _COUNTERS for text in texts for run in _question_runs(text)]
            counts += np.bincount(runs, minlength=_COUNTERS)
    return counts


def _rarest(runs: frozenset[int], counts: NDArray[np.int64]) -> list[int]:
    """The rarest fifth of a text's runs plus one, in an order that all texts share."""
    ordered = sorted(runs, key=lambda run: (counts[run % _COUNTERS], run))
    return ordered[: len(ordered) // 5 + 1]


def _most_similar(
    train: pl.Series,
    texts: Sequence[NDArray[np.int64]],
    places: dict[int, list[int]],
    counts: NDArray[np.int64],
) -> dict[int, tuple[float, int]]:
    """By held-out text that has a near one in train: similarity and row of the nearest."""
    best: dict[int, tuple[float, int]] = {}
    for row, text in enumerate(train):
        runs = _question_runs(text)
        near = {number for run in _rarest(runs, counts) for number in places.get(run, ())}
        for number in near:
            size = len(texts[number])
            if min(size, len(runs)) < NEAR * max(size, len(runs)):
                continue
            similarity = _jaccard(runs, frozenset(texts[number].tolist()))
            if similarity >= NEAR and similarity > best.get(number, (0.0, 0))[0]:
                best[number] = (similarity, row)
    return best
