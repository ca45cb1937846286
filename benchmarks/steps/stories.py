"""Stories of three and four steps whose label is a number, so that only right steps give it.

    Tom has 5 apples, finds 3, keeps a quarter, then buys 6. How many apples now?

    5 + 3 = 8. 8 / 4 = 2. 2 + 6 = 8. The answer is 8.

Word problems of the quickstart have an equation as their label, which a rationale with wrong sums
teaches as well as one with right sums. Here the label is the result: a wrong sum teaches a wrong
result, so the quality of rationales can show.

Separation, by construction and for every seed:

- Questions have different (start, operations): no two of any splits share one.
- A quarter of all (start, operations), chosen by hash, is for lessons alone.
- A sixth of all facts ("7 + 4"), chosen by hash, is in no lesson. A teacher taught by lessons
  must rely on what it knew before, so its errors are tied to facts, as those of a weak model are,
  and five samples share them.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import polars as pl

from qcrd_core.ids import content_hash, derive_seed

MAX_VALUE = 12
"""Largest number in a story. A small student learns the facts up to it within minutes."""
NUM_TRAIN, NUM_VALIDATION, NUM_TEST = 1500, 200, 2000
_FACTORS = (2, 3, 4)
_LESSON_SHARE, _UNTAUGHT_SHARE = 4, 6
_NAMES = ("Tom", "Ann", "Sam", "Eva", "Leo", "Mia", "Ben", "Zoe")
_ITEMS = ("apples", "pens", "books", "coins", "cards", "eggs", "toys", "cups")
_WORDINGS = {
    "+": ("finds {b}", "buys {b}", "gets {b}"),
    "-": ("loses {b}", "sells {b}", "drops {b}"),
    "*": ("{times} them",),
    "/": ("keeps a {part}",),
}
_TIMES = {2: "doubles", 3: "triples", 4: "quadruples"}
_PARTS = {2: "half", 3: "third", 4: "quarter"}


class Step(NamedTuple):
    """One operation on the number at hand."""

    left: int
    sign: str
    right: int
    result: int

    @property
    def fact(self) -> str:
        """What one must know to take the step, for example `7 + 4`."""
        return f"{self.left} {self.sign} {self.right}"


@dataclass(frozen=True)
class Story:
    """A question with its right reasoning."""

    question: str
    rationale: str
    """Without the sentence that names the answer."""
    answer: str
    """Canonical whole number."""
    steps: tuple[Step, ...]


def questions(seed: int) -> pl.DataFrame:
    """Make the questions of all splits, test first, so that a split's size changes no other's.

    Args:
        seed: Seed of numbers and words.

    Returns:
        question_id, split, question, gold_answer.
    """
    rng = random.Random(derive_seed("steps", "questions", seed))
    sizes = {"test": NUM_TEST, "validation": NUM_VALIDATION, "train": NUM_TRAIN}
    rows, seen = [], set[str]()
    for split, size in sizes.items():
        for number in range(1, size + 1):
            story = _tell(_new_steps(rng, seen), rng)
            rows.append((f"steps-{split}-{number:04d}", split, story.question, story.answer))
    return pl.DataFrame(
        rows, schema=["question_id", "split", "question", "gold_answer"], orient="row"
    )


def lessons(seed: int) -> Iterator[Story]:
    """Make an endless stream of worked examples that share no question and lack some facts.

    Args:
        seed: Seed of the stream; independent of the stream of `questions`.

    Yields:
        Stories; they may repeat.
    """
    rng = random.Random(derive_seed("steps", "lessons", seed))
    while True:
        steps = _draw(rng)
        if _is_for_lessons(steps) and not any(_is_untaught(step) for step in steps):
            yield _tell(steps, rng)


def _new_steps(rng: random.Random, seen: set[str]) -> tuple[Step, ...]:
    while True:
        steps = _draw(rng)
        if not _is_for_lessons(steps) and _key(steps) not in seen:
            seen.add(_key(steps))
            return steps


def _draw(rng: random.Random) -> tuple[Step, ...]:
    """Three or four steps; each sign is equally likely among those that the number allows."""
    value, steps = rng.randint(2, MAX_VALUE), []
    for _ in range(rng.choice((3, 4))):
        allowed = {sign: rights for sign, rights in _rights(value).items() if rights}
        sign = rng.choice(sorted(allowed))
        right = rng.choice(allowed[sign])
        result = {"+": value + right, "-": value - right, "*": value * right}.get(
            sign, value // right
        )
        steps.append(Step(value, sign, right, result))
        value = result
    return tuple(steps)


def _rights(value: int) -> dict[str, list[int]]:
    """Operands of each sign that keep the number between 1 and MAX_VALUE, and whole."""
    return {
        "+": list(range(1, MAX_VALUE - value + 1)),
        "-": list(range(1, value)),
        "*": [factor for factor in _FACTORS if value * factor <= MAX_VALUE],
        "/": [factor for factor in _FACTORS if value % factor == 0],
    }


def _tell(steps: tuple[Step, ...], rng: random.Random) -> Story:
    name, item = rng.choice(_NAMES), rng.choice(_ITEMS)
    told = [_told(step, rng) for step in steps]
    story = ", ".join([f"{name} has {steps[0].left} {item}", *told[:-1], f"then {told[-1]}"])
    return Story(
        question=f"{story}. How many {item} now?",
        rationale=" ".join(f"{step.fact} = {step.result}." for step in steps),
        answer=str(steps[-1].result),
        steps=steps,
    )


def _told(step: Step, rng: random.Random) -> str:
    words = {"b": step.right, "times": _TIMES.get(step.right), "part": _PARTS.get(step.right)}
    return rng.choice(_WORDINGS[step.sign]).format_map(words)


def _key(steps: tuple[Step, ...]) -> str:
    return "; ".join(step.fact for step in steps)


def _is_for_lessons(steps: tuple[Step, ...]) -> bool:
    return int(content_hash("steps", _key(steps)), 16) % _LESSON_SHARE == 0


def _is_untaught(step: Step) -> bool:
    return int(content_hash("steps", "fact", step.fact), 16) % _UNTAUGHT_SHARE == 0
