"""Is a new student better than the champion? A rule, applied to answers question by question.

    decision = compare(champion_answers, challenger_answers, config.promotion)

The frozen test set is the one the champion was measured on. The challenger must have answered every
question of it, unchanged: same id, text, choices and gold answer. It may have answered more, since
a data set that grows adds test questions as well.

Limits: the same test set is asked every night, so over many nights a student that is better by
chance will pass. `promotion.max_p_value` bounds one night, not a year; a fresh test set now and
then tells how much was luck.
"""

from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from qcrd_core.config.operations import PromotionSection
from qcrd_core.evaluation import mcnemar_p_value
from qcrd_core.teacher.plan import prompt_hashes

_KEYS = ["question_id", "asked", "gold_answer"]


@dataclass(frozen=True)
class Slice:
    """Both students on some of the test questions."""

    name: str
    num_questions: int
    champion_correct: int
    challenger_correct: int

    @property
    def gain(self) -> float:
        """Accuracy of the challenger less that of the champion, in [-1, 1]."""
        return (self.challenger_correct - self.champion_correct) / self.num_questions


@dataclass(frozen=True)
class Comparison:
    """Both students on the champion's test questions."""

    whole: Slice
    num_gained: int
    """Questions that only the challenger has right."""
    num_lost: int
    """Questions that only the champion has right."""
    p_value: float
    """Exact one-sided McNemar test."""
    slices: tuple[Slice, ...]
    """By the questions' `template`, sorted by name."""

    def to_json(self) -> dict[str, Any]:
        """The numbers as a JSON-able mapping."""
        return asdict(self)


@dataclass(frozen=True)
class Decision:
    """Whether to promote, and why, in sentences."""

    promote: bool
    reasons: tuple[str, ...]
    comparison: Comparison | None
    """None where there was nothing to compare with, or nothing comparable."""


def frozen_answers(questions: pl.DataFrame, predictions: pl.DataFrame) -> pl.DataFrame:
    """Put test questions and a student's answers together, for `compare`.

    Args:
        questions: Table `questions`; rows of other splits are ignored.
        predictions: Table `predictions` of the test split.

    Returns:
        question_id, asked (hash of text and choices), gold_answer, template, is_correct; questions
        without a gold answer are left out, for nobody can be right on them.
    """
    asked = questions.with_columns(prompt_hashes(questions).alias("asked"))
    answered = predictions.select("question_id", "is_correct")
    joined = asked.filter(pl.col("split") == "test").join(answered, on="question_id", how="inner")
    return joined.select(*_KEYS, "template", "is_correct").drop_nulls("is_correct")


def compare(
    champion: pl.DataFrame | None, challenger: pl.DataFrame, rule: PromotionSection
) -> Decision:
    """Decide whether the challenger takes the champion's place.

    Args:
        champion: From `frozen_answers`; None if there is no champion yet.
        challenger: From `frozen_answers`.
        rule: Section `promotion`.

    Returns:
        The decision; a reason for every condition, whether it held or not.
    """
    if challenger.is_empty():
        return _refused("The challenger has answered no test question that has a gold answer.")
    if champion is None:
        correct, total = challenger["is_correct"].sum(), challenger.height
        first = f"There was no champion before. Right on {correct:,} of {total:,} test questions."
        return Decision(promote=True, reasons=(first,), comparison=None)
    paired = champion.join(
        challenger.select(*_KEYS, pl.col("is_correct").alias("is_now_correct")), on=_KEYS
    )
    num_changed = champion.height - paired.height
    if num_changed or paired.is_empty():
        return _refused(
            f"The test set has changed since the champion was measured: {num_changed:,} of its "
            f"{champion.height:,} questions are gone, read otherwise or have another gold answer. "
            "The two cannot be compared; let a person decide (`qcrd promote --anyway`)."
        )
    found = _comparison(paired)
    conditions = [_gain(found, rule), _chance(found, rule), *_guarded(found, rule)]
    whole = found.whole
    opening = (
        f"Right on {whole.challenger_correct:,} of {whole.num_questions:,} test questions, the "
        f"champion on {whole.champion_correct:,}: gained {found.num_gained:,}, lost "
        f"{found.num_lost:,}."
    )
    return Decision(
        promote=all(held for held, _ in conditions),
        reasons=(opening, *(text for _, text in conditions)),
        comparison=found,
    )


def _refused(reason: str) -> Decision:
    return Decision(promote=False, reasons=(reason,), comparison=None)


def _comparison(paired: pl.DataFrame) -> Comparison:
    was, now = pl.col("is_correct"), pl.col("is_now_correct")
    num_gained = paired.filter(now & ~was).height
    num_lost = paired.filter(was & ~now).height
    parts = paired.drop_nulls("template").partition_by("template", as_dict=True)
    return Comparison(
        whole=_slice("all", paired),
        num_gained=num_gained,
        num_lost=num_lost,
        p_value=mcnemar_p_value(num_gained, num_lost, alternative="greater"),
        slices=tuple(_slice(str(key[0]), part) for key, part in sorted(parts.items())),
    )


def _slice(name: str, paired: pl.DataFrame) -> Slice:
    return Slice(
        name, paired.height, int(paired["is_correct"].sum()), int(paired["is_now_correct"].sum())
    )


def _gain(found: Comparison, rule: PromotionSection) -> tuple[bool, str]:
    gain = found.whole.gain
    held = gain > 0 and gain >= rule.min_gain
    asked = f"at least {100 * rule.min_gain:.2f}" if rule.min_gain else "more than 0"
    return held, f"Gain {100 * gain:+.2f} points, {asked} asked for: {_verdict(held)}."


def _chance(found: Comparison, rule: PromotionSection) -> tuple[bool, str]:
    held = found.p_value <= rule.max_p_value
    return held, (
        f"Exact McNemar test p = {found.p_value:.3g}, at most {rule.max_p_value:g} asked for: "
        f"{_verdict(held)}."
    )


def _guarded(found: Comparison, rule: PromotionSection) -> list[tuple[bool, str]]:
    by_name = {part.name: part for part in found.slices}
    conditions = []
    for name in rule.guarded_slices:
        part = by_name.get(name)
        if part is None:
            known = ", ".join(by_name) or "none"
            text = f"Slice {name} has no test question (there are: {known}): not held."
            conditions.append((False, text))
            continue
        # Whole questions: 0.1 of 10 is 1, whatever floating point makes of it.
        lost = part.champion_correct - part.challenger_correct
        held = lost <= rule.slice_tolerance * part.num_questions + 1e-9
        text = (
            f"Slice {name}: right on {part.challenger_correct:,} of {part.num_questions:,}, the "
            f"champion on {part.champion_correct:,}: {_verdict(held)}."
        )
        conditions.append((held, text))
    return conditions


def _verdict(held: bool) -> str:
    return "held" if held else "not held"
