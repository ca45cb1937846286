"""Right answers as sources name them: by text, letter, number, or inside a structure."""

import pytest
from pydantic import ValidationError

from qcrd_core.data.questions import to_questions
from qcrd_core.data.spec import DatasetSpec
from qcrd_core.errors import DataError


def _spec(kind="choice", **columns):
    choices = {"choices": "choices"} if kind == "choice" else {}
    return DatasetSpec.model_validate(
        {
            "name": "mine",
            "source": {"type": "files", "train": "mine.jsonl"},
            "columns": {**choices, "gold_answer": "answer", **columns},
            "answer": {"kind": kind},
        }
    )


def _gold(row, spec):
    return to_questions([{"question": "Which?", **row}], spec, "train", where="mine")[
        "gold_answer"
    ][0]


PETS = ["cat", "dog", "fish"]
ARC = {"text": PETS, "label": ["A", "B", "C"]}


@pytest.mark.parametrize(
    ("choices", "answer", "index", "expected"),
    [
        pytest.param(PETS, "dog", None, "dog", id="text"),
        pytest.param(PETS, "B", None, "dog", id="letter"),
        pytest.param(PETS, "(c)", None, "fish", id="letter in brackets"),
        pytest.param(PETS, 1, None, "dog", id="integer counts from 0"),
        pytest.param(PETS, "1", 0, "dog", id="number as text, from 0"),
        pytest.param(PETS, "1", 1, "cat", id="number as text, from 1"),
        pytest.param(PETS, 3, 1, "fish", id="integer from 1"),
        pytest.param(PETS, "2.0", 1, "dog", id="number that passed through a float"),
        # Beside texts, an integer is an index even if a choice reads like it.
        pytest.param(["3", "0", "1", "2"], 1, None, "0", id="integer beside number texts"),
        pytest.param(["3", "0", "1", "2"], "1", None, "1", id="text beside number texts"),
        pytest.param([3, 0, 1, 2], 1, None, "1", id="integer beside integers"),
        pytest.param([3, 0, 1, 2], 1, 0, "0", id="integer beside integers, by setting"),
        pytest.param(["12", "15", "18"], 15, None, "15", id="integer too large for an index"),
        pytest.param(["Polish", "polish"], "polish", None, "polish", id="exact text first"),
        pytest.param(ARC, "B", None, "dog", id="texts and letters"),
        pytest.param({"text": PETS, "label": ["1", "2", "3"]}, "3", None, "fish", id="own numbers"),
        pytest.param({"text": PETS}, "dog", None, "dog", id="texts alone"),
        pytest.param(
            [{"label": "A", "text": "cat"}, {"label": "B", "text": "dog"}], "B", None, "dog",
            id="list of structures",
        ),
    ],
)  # fmt: skip
def test_gold_choice_is_the_one_that_the_source_means(choices, answer, index, expected):
    row = {"choices": choices, "answer": answer}
    assert _gold(row, _spec(gold_index=index)) == expected


@pytest.mark.parametrize(
    ("choices", "answer", "index", "rule"),
    [
        pytest.param(PETS, 3, None, "set columns.gold_index: 1", id="one too many"),
        pytest.param(PETS, "horse", None, "cannot be read", id="no choice"),
        pytest.param(PETS, "dog", 0, "must be the number of a choice", id="text for a number"),
        pytest.param(PETS, 0, 1, "counted from columns.gold_index 1", id="below the first"),
        pytest.param({"text": PETS, "label": ["A"]}, "A", None, "list of 2 to 26", id="letters"),
    ],
)
def test_gold_choice_that_names_none_is_refused(choices, answer, index, rule):
    with pytest.raises(DataError, match=rule):
        _gold({"choices": choices, "answer": answer}, _spec(gold_index=index))


def test_gold_index_of_another_kind_is_refused():
    with pytest.raises(ValidationError, match="gold_index applies only to answer"):
        _spec(kind="number", gold_index=0)


def test_column_may_be_a_path_into_a_structure():
    row = {"answer": {"text": ["42"], "start": [3]}, "meta": {"id": "a.b"}}
    spec = _spec(kind="number", gold_answer="answer.text.0", question_id="meta.id")
    made = to_questions([{"question": "?", **row}], spec, "train", where="mine")
    assert made.select("question_id", "gold_answer").row(0) == ("a.b", "42")


def test_column_with_a_dot_in_its_name_is_that_column():
    assert _gold({"a.b": "7"}, _spec(kind="number", gold_answer="a.b")) == "7"


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        ({"text": "Paris"}, "for example answer.text"),
        (["Paris"], "for example answer.0"),
    ],
)
def test_gold_that_is_a_structure_is_refused_with_the_way_into_it(value, remedy):
    with pytest.raises(DataError, match=remedy):
        _gold({"answer": value}, _spec(kind="text"))


def test_gold_number_is_read_like_an_answer():
    spec = _spec(kind="number")
    assert _gold({"answer": r"\frac{17}{2}"}, spec) == "8.5"
    assert (
        _gold({"answer": r"We add them, so it is $\boxed{12}$. There were 3 steps."}, spec) == "12"
    )
    with pytest.raises(DataError, match="cannot be read"):
        _gold({"answer": r"5\pi"}, spec)
