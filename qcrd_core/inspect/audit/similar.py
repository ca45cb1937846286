"""Find similar texts: repeated rationales of a question, and test questions that are in train.

Exact: equal except for case, punctuation and spaces. Near: the sets of neighbouring words (three
for rationales, two for questions) share at least 0.8 of their union (Jaccard). Numbers count as
words, so the same story with other numbers is another question.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import polars as pl

NEAR = 0.8

_WORDS = re.compile(r"\w+(?:[.,]\d+)*", re.UNICODE)
_RATIONALE_WORDS, _QUESTION_WORDS = 3, 2
_MOST_QUESTIONS = 20_000
_MOST_TEXTS_OF_A_SHINGLE = 200


@dataclass(frozen=True)
class Duplicates:
    """Rationales that repeat another rationale of the same question."""

    num_questions: int
    """Number of questions checked: all, or the first 20,000 by id."""
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
    ids = rows["question_id"].unique().sort().head(_MOST_QUESTIONS)
    rows = rows.filter(pl.col("question_id").is_in(ids.implode()))
    num_exact = num_near = 0
    for texts in rows.group_by("question_id").agg("rationale")["rationale"]:
        words = [tuple(_words(text)) for text in texts]
        distinct = list(dict.fromkeys(words))
        num_exact += len(words) - len(distinct)
        num_near += _count_near([_shingles(text, _RATIONALE_WORDS) for text in distinct])
    return Duplicates(len(ids), rows.height, num_exact, num_near)


def find_leakage(questions: pl.DataFrame) -> Leakage:
    """Find test and validation questions that also appear in train, exactly or nearly.

    Args:
        questions: Table `questions`, all splits.

    Returns:
        These questions, each with the most similar training question.
    """
    train = questions.filter(pl.col("split") == "train")
    held_out = questions.filter(pl.col("split") != "train")
    shingles = [_shingles(_words(text), _QUESTION_WORDS) for text in train["question"]]
    places: dict[int, list[int]] = defaultdict(list)
    for number, found in enumerate(shingles):
        for shingle in found:
            places[shingle].append(number)
    ids, rows = train["question_id"].to_list(), []
    for question_id, split, text in held_out.select("question_id", "split", "question").iter_rows():
        best = _most_similar(_shingles(_words(text), _QUESTION_WORDS), shingles, places)
        if best is not None and best[1] >= NEAR:
            rows.append((question_id, split, ids[best[0]], best[1]))
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


def _most_similar(
    wanted: frozenset[int],
    texts: list[frozenset[int]],
    places: dict[int, list[int]],
) -> tuple[int, float] | None:
    shared: Counter[int] = Counter()
    for shingle in _rare(wanted, places):
        shared.update(places.get(shingle, ()))
    scored = ((number, _jaccard(wanted, texts[number])) for number in shared)
    return max(scored, key=lambda item: (item[1], -item[0]), default=None)


def _rare(wanted: frozenset[int], places: dict[int, list[int]]) -> Iterable[int]:
    """Runs that occur in few texts or, if most are common, the rarest fifth plus one.

    If two texts share 0.8 of their runs, any fifth plus one of either's runs has a shared run.
    """
    ordered = sorted(wanted, key=lambda shingle: (len(places.get(shingle, ())), shingle))
    needed = len(ordered) // 5 + 1
    few = [s for s in ordered if len(places.get(s, ())) <= _MOST_TEXTS_OF_A_SHINGLE]
    return few if len(few) >= needed else ordered[:needed]
