"""Data set `word_problems`: seeded arithmetic word problems of one and two steps.

A real task for a machine without access to the hub. `generate` makes the questions of all splits;
`lessons` makes worked examples that teach a small teacher the form (see `quickstart/teacher`).
Templates, wordings and number ranges are in `word_problems.yaml`.

Separation, by construction and for every seed:

- Each question has a different (template, numbers): no two questions of any splits share one, so
  nothing of test or validation is in train.
- A fixed quarter of all (template, numbers), chosen by hash, is reserved for lessons. No question
  of any split, including train, uses it: a teacher trained on lessons has seen the templates but
  none of the questions.

The student's label is the equation, as in the paper for SVAMP, and its value is compared. From
1,000 questions, a T5 of a few million parameters learns which numbers to combine and how (about 70%
of unseen questions). It does not learn to compute the results (6%), because it would have to see
the whole table of results in examples.

Limits: the same arithmetic step (7 * 8) may occur in train and in test under different templates or
with different other numbers, and 3 + 5 is a different tuple from 5 + 3.
"""

import functools
import operator
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from data_schemas import Questions
from qcrd_core.errors import ConfigError
from qcrd_core.ids import content_hash, derive_seed

NUM_TRAIN, NUM_VALIDATION, NUM_TEST = 1000, 200, 400
_TEMPLATES = Path(__file__).with_name("word_problems.yaml")
_OPERATIONS: Mapping[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.floordiv,
}
# One in four (template, numbers) is for lessons, which leaves every template, even the smallest,
# enough for both.
_LESSON_SHARE = 4


@dataclass(frozen=True)
class Lesson:
    """A worked example."""

    template: str
    numbers: tuple[int, ...]
    """In the order of the template's `numbers`."""
    question: str
    rationale: str
    """One of `wordings`."""
    wordings: tuple[str, ...]
    """The template's wordings of the reasoning, without the sentence that names the answer."""
    equation: str
    """The whole arithmetic in one expression, for example `( 12 + 5 ) - 3`."""
    answer: str
    """Canonical whole number, the equation's value."""


@dataclass(frozen=True)
class _Template:
    """One entry of the YAML file."""

    name: str
    variables: tuple[str, ...]
    steps: tuple[str, ...]
    question: str
    rationales: tuple[str, ...]
    tuples: tuple[tuple[int, ...], ...]
    """All usable numbers, in a fixed order."""
    names: tuple[str, ...]
    items: tuple[str, ...]

    @functools.cached_property
    def lesson_tuples(self) -> tuple[tuple[int, ...], ...]:
        """Numbers for lessons."""
        return tuple(numbers for numbers in self.tuples if _is_for_lessons(self.name, numbers))

    @functools.cached_property
    def question_tuples(self) -> tuple[tuple[int, ...], ...]:
        """Numbers for questions."""
        return tuple(numbers for numbers in self.tuples if not _is_for_lessons(self.name, numbers))

    def fill(self, numbers: tuple[int, ...], rng: random.Random) -> Lesson:
        """Put numbers and randomly chosen words into question and rationale."""
        given = dict(zip(self.variables, numbers, strict=True))
        values = _solve(self.steps, given)
        name, other = rng.sample(self.names, 2)
        words = {"name": name, "other": other, "item": rng.choice(self.items), **values}
        wordings = tuple(rationale.format_map(words) for rationale in self.rationales)
        return Lesson(
            template=self.name,
            numbers=numbers,
            question=self.question.format_map(words),
            rationale=rng.choice(wordings),
            wordings=wordings,
            equation=_equation(self.steps, given),
            answer=str(values[self.steps[-1].split()[0]]),
        )


def generate(
    seed: int,
    *,
    num_train: int = NUM_TRAIN,
    num_validation: int = NUM_VALIDATION,
    num_test: int = NUM_TEST,
) -> pl.DataFrame:
    """Make the questions of all splits.

    Templates take turns, so that each has its share of every split until a small one has no unused
    numbers left. Test comes first in the random stream, then validation, then train: so a larger
    training set leaves all other questions unchanged.

    Args:
        seed: Seed of numbers and words.
        num_train: Training questions, at least 0.
        num_validation: Validation questions, at least 0.
        num_test: Test questions, at least 0.

    Returns:
        Rows of `data_schemas.Questions`; question_id is `wp-<split>-<number>`, template is set and
        gold_target is the equation.

    Raises:
        ConfigError: If a count is negative, or exceeds the number of distinct questions.
    """
    sizes = {"test": num_test, "validation": num_validation, "train": num_train}
    rows: list[dict[str, str | None]] = []
    for split, number, filled in _filled(seed, sizes):
        rows.append(
            {
                "question_id": f"wp-{split}-{number:04d}",
                "split": split,
                "question": filled.question,
                "choices": None,
                "gold_answer": filled.answer,
                "gold_target": filled.equation,
                "template": filled.template,
            }
        )
    return Questions.validate(pl.DataFrame(rows, schema=Questions.create_empty().schema))


def perfect_rationales(seed: int) -> pl.DataFrame:
    """Write the rationales of a perfect teacher: all wordings of the correct reasoning.

    Args:
        seed: As in `generate`; the questions are those of its default sizes.

    Returns:
        question_id of the training questions, and rationales, a list of texts that end in the
        answer.
    """
    sizes = {"test": NUM_TEST, "validation": NUM_VALIDATION, "train": NUM_TRAIN}
    rows = [
        {
            "question_id": f"wp-{split}-{number:04d}",
            "rationales": [f"{text} The answer is {filled.answer}." for text in filled.wordings],
        }
        for split, number, filled in _filled(seed, sizes)
        if split == "train"
    ]
    return pl.DataFrame(rows)


def _filled(seed: int, sizes: Mapping[str, int]) -> Iterator[tuple[str, int, Lesson]]:
    """Split, number within it and content of each question."""
    _check_sizes(sizes)
    rng = random.Random(derive_seed("word_problems", "questions", seed))
    stream = _in_turns(rng)
    for split, size in sizes.items():
        for number in range(1, size + 1):
            template, numbers = next(stream)
            yield split, number, template.fill(numbers, rng)


def lessons(seed: int) -> Iterator[Lesson]:
    """Make an endless stream of worked examples, from numbers that no question uses.

    Args:
        seed: Seed of the stream; independent of `generate`'s stream of the same seed.

    Yields:
        Lessons, templates in random order, each with a random wording. Numbers repeat.
    """
    rng = random.Random(derive_seed("word_problems", "lessons", seed))
    pools = [(template, template.lesson_tuples) for template in _templates()]
    while True:
        template, tuples = rng.choice(pools)
        yield template.fill(rng.choice(tuples), rng)


def num_distinct_questions() -> int:
    """Number of (template, numbers) from which `generate` draws the questions of all splits."""
    return sum(len(template.question_tuples) for template in _templates())


def _check_sizes(sizes: Mapping[str, int]) -> None:
    for split, size in sizes.items():
        if size < 0:
            msg = f"num_{split} must be at least 0; got {size} (word_problems). Give another size."
            raise ConfigError(msg)
    total, available = sum(sizes.values()), num_distinct_questions()
    if total > available:
        msg = (
            f"word_problems cannot make more than {available} distinct questions; got {total} "
            "(num_train + num_validation + num_test). Ask for fewer."
        )
        raise ConfigError(msg)


def _in_turns(rng: random.Random) -> Iterator[tuple[_Template, tuple[int, ...]]]:
    # The caller draws words from the same generator between two turns. The order of draws is fixed,
    # so the stream is still a function of the seed.
    pools = []
    for template in _templates():
        tuples = list(template.question_tuples)
        rng.shuffle(tuples)
        pools.append((template, tuples))
    while pools:
        rng.shuffle(pools)
        for template, tuples in pools:
            yield template, tuples.pop()
        pools = [(template, tuples) for template, tuples in pools if tuples]


def _is_for_lessons(template: str, numbers: tuple[int, ...]) -> bool:
    key = content_hash("word_problems", template, *(str(number) for number in numbers))
    return int(key, 16) % _LESSON_SHARE == 0


def _solve(steps: tuple[str, ...], values: dict[str, int]) -> dict[str, int]:
    """Run `x = a + b` texts; returns the numbers and the results by name."""
    values = dict(values)
    for step in steps:
        result, _, left, sign, right = step.split()
        values[result] = _OPERATIONS[sign](values[left], values[right])
    return values


def _equation(steps: tuple[str, ...], given: dict[str, int]) -> str:
    """Write all steps as one expression of the given numbers."""
    parts = {name: str(value) for name, value in given.items()}
    whole = ""
    for step in steps:
        result, _, left, sign, right = step.split()
        whole = f"{parts[left]} {sign} {parts[right]}"
        parts[result] = f"( {whole} )"
    return whole


def _is_usable(steps: tuple[str, ...], values: dict[str, int], max_result: int) -> bool:
    solved = _solve(steps, values)
    for step in steps:
        result, _, left, sign, right = step.split()
        if not 1 <= solved[result] <= max_result:
            return False
        if sign == "/" and solved[left] % solved[right]:
            return False
    return True


@functools.cache
def _templates() -> tuple[_Template, ...]:
    content = yaml.safe_load(_TEMPLATES.read_text(encoding="utf-8"))
    return tuple(_template(entry, content) for entry in content["templates"])


def _template(entry: dict[str, Any], content: dict[str, Any]) -> _Template:
    variables, steps = tuple(entry["numbers"]), tuple(entry["steps"])
    ranges = (range(low, high + 1) for low, high in entry["numbers"].values())
    tuples = tuple(
        numbers
        for numbers in product(*ranges)
        if _is_usable(steps, dict(zip(variables, numbers, strict=True)), content["max_result"])
    )
    return _Template(
        name=entry["name"],
        variables=variables,
        steps=steps,
        question=entry["question"],
        rationales=tuple(entry["rationales"]),
        tuples=tuples,
        names=tuple(content["names"]),
        items=tuple(content["items"]),
    )
