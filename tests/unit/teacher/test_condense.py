"""Prompts of rewrites, and which rewrites count."""

import polars as pl
import pytest

from qcrd_core.data.answers import AnswerSpec, extract
from qcrd_core.data.spec import load_spec
from qcrd_core.teacher.condense import (
    rewriting_questions,
    rewriting_spec,
    rewritten,
    share_too_long,
    summarize_condensed,
    verdicts,
)
from qcrd_core.teacher.rendering import render
from tests.support.tables import make_questions, make_rationales
from tests.support.tiny_config import tiny_config

SPEC = load_spec("word_problems")


def _long(**row):
    full = {
        "question_id": "q",
        "source": "teacher",
        "sample_idx": 1,
        "polarity": "negative",
        "rationale": "Long {and} winding.",
        "original": "Long {and} winding.",
        "answer": "7",
        "num_tokens_before": 90,
        **row,
    }
    return pl.DataFrame([full], schema_overrides={"sample_idx": pl.Int32, "answer": pl.String})


def _rewrite(**row):
    return make_rationales(
        [{"question_id": "q#1", "sample_idx": 0, "answer": "7", "rationale": "Short.", **row}]
    )


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_prompt_shows_question_rationale_and_answer_and_begins_with_the_instruction(api):
    asked = rewriting_questions(_long(), make_questions([{"question_id": "q"}]))
    config = tiny_config(teacher={"model": {"type": "hub", "name": "none"}, "api": api})
    prompt = render(config, rewriting_spec(SPEC, 64, api), asked["question"][0], None)
    text = prompt if isinstance(prompt, str) else prompt[0]["content"]

    assert asked["question_id"].to_list() == ["q#1"]
    assert "in at most 32 words" in text.split("\n\n")[0]
    assert "end with: The answer is" in text.split("\n\n")[0]
    assert text.split("\n\n")[1:] == [
        "Question: Question q?",
        "Answer of the explanation: 7",
        "Explanation: Long {and} winding.",
        *(["Shorter explanation:"] if api == "completions" else []),
    ]


KINDS = {
    "number": ({"kind": "number"}, "1/3", None),
    "choice": ({"kind": "choice"}, "the left bank", ("the right bank", "the left bank")),
    "label": ({"kind": "label", "labels": ("yes", "no")}, "no", None),
    "labels": ({"kind": "labels", "labels": ("sad", "odd", "new")}, "sad, new", None),
    "text": ({"kind": "text"}, "st. louis", None),
    "json": ({"kind": "json"}, '{"name": "Ann"}', None),
}


@pytest.mark.parametrize("marker", ["The answer is", None])
@pytest.mark.parametrize("kind", KINDS)
def test_rewrite_that_ends_as_it_is_told_is_read_with_the_answer_that_it_was_shown(kind, marker):
    keys, answer, choices = KINDS[kind]
    spec = AnswerSpec(**keys, marker=marker)
    asked = rewriting_spec(SPEC.model_copy(update={"answer": spec}), 64, "chat")
    ending = asked.prompt.instruction.partition("end with: ")[2].removesuffix(
        " followed by the answer."
    )

    assert extract(f"First this. {ending} {answer}", spec, choices).answer == answer


@pytest.mark.parametrize(
    ("verdict", "original", "rewrite", "num_tokens"),
    [
        ("ok", {}, {}, 8),
        ("too_long", {}, {}, 9),
        ("other_answer", {}, {"answer": "8"}, 8),
        ("no_answer", {}, {"answer": None}, 8),
        ("empty", {}, {"rationale": None}, None),
        ("empty", {}, {"rationale": "Hm, 7.", "reasoning": "Hm, 7."}, 8),
        ("empty", {}, {"rationale": "**7**."}, 8),
        ("empty", {"answer": "Yes"}, {"answer": "Yes", "rationale": "yes"}, 8),
        ("failed", {}, {"answer": None, "failed": True}, None),
        ("not_asked", {"answer": None}, {"question_id": "other#1"}, None),
    ],
)
def test_rewrite_counts_if_it_keeps_its_answer_says_something_and_fits(
    verdict, original, rewrite, num_tokens
):
    rows = rewritten(_long(**original), _rewrite(**rewrite))
    counted = pl.Series([num_tokens], dtype=pl.Int32)
    rows = rows.with_columns(num_tokens_after=counted, generation=pl.lit("g"))
    found = verdicts(rows, max_tokens=8)

    (row,) = found.to_dicts()
    assert row["verdict"] == verdict
    assert row["rationale"] == ("Short." if verdict == "ok" else None)
    assert row["error"] == ("HTTP 500" if verdict == "failed" else None)
    assert row["original"] == "Long {and} winding."
    numbers = summarize_condensed(found, 3, _rewrite())
    assert numbers["num_condensed" if verdict == "ok" else f"num_{verdict}"] == 1
    assert (numbers["num_kept"], numbers["num_long"], numbers["num_tokens"]) == (3, 1, 5)


def test_share_of_long_texts_is_of_those_that_are_there():
    assert share_too_long(pl.Series(["x" * 40, "x" * 41, None, "xx"]), 10) == pytest.approx(1 / 3)
    assert share_too_long(pl.Series([None], dtype=pl.String), 10) is None
