"""Answers that are sets of labels or JSON documents: found, made canonical, and refused."""

import pytest
from pydantic import ValidationError

from qcrd_core.data.answers import AnswerSpec, canonical, extract
from qcrd_core.data.questions import to_questions
from qcrd_core.data.spec import DatasetSpec
from qcrd_core.errors import DataError

TICKETS = AnswerSpec(kind="labels", labels=("billing", "login", "data_loss", "no reply"))
JSON = AnswerSpec(kind="json")
PERSON = AnswerSpec(
    kind="json",
    json_schema={
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    },
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The answer is login, billing.", "billing, login"),
        ("The answer is billing and login.", "billing, login"),
        ("The answer is billing; login", "billing, login"),
        ('The answer is ["login", "billing"].', "billing, login"),
        ("The answer is **Login** and **Billing**.", "billing, login"),
        ("The answer is data loss.", "data_loss"),
        ("The answer is No Reply.", "no reply"),
        ("The answer is login, login.", "login"),
        ("The answer is billing, but not login.", "billing"),
        ("The answer is neither billing nor login.", None),
        ("The answer is none.", "none"),
        ("The answer is none of them.", "none"),
        ("The answer is [].", "none"),
        ("The answer is no labels.", "none"),
        ("The answer is unclear.", None),
        ("The answer is:\n- login\n- billing\n\nIt has no data loss.", "billing, login"),
        ("The answer is billing. It might be login.", "billing"),
        ("The user cannot pay.\nAnswer: login, billing", "billing, login"),
        ("The user cannot pay.\nlogin, billing", "billing, login"),
        ("The answer is login. Wait, the answer is billing, login.", "billing, login"),
        ("", None),
    ],
)
def test_set_of_labels_has_one_text_whatever_its_order(text, expected):
    assert extract(text, TICKETS, None).answer == expected


@pytest.mark.parametrize("gold", ["login,billing", "billing, login", "billing|login", "none"])
def test_canonical_set_of_labels_reads_itself(gold):
    once = canonical(gold, TICKETS, None)
    assert once is not None
    assert canonical(once, TICKETS, None) == once


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param('The answer is {"b": 1.0, "a": " x  y "}.', '{"a": "x y", "b": 1}', id="keys"),
        pytest.param('The answer is {"a": 1.5}', '{"a": 1.5}', id="decimals stay"),
        pytest.param('The answer is [1, 2].', "[1, 2]", id="list keeps its order"),
        pytest.param('The answer is\n```json\n{"a": [{"b": null}]}\n```', '{"a": [{"b": null}]}',
                     id="fence"),
        pytest.param('The answer is {"a": "It is. {Or not} \\"so\\"."}.',
                     '{"a": "It is. {Or not} \\"so\\"."}', id="brackets and quotes in a text"),
        pytest.param('{"a": 1} is wrong. The answer is {"a": 2}.', '{"a": 2}', id="after marker"),
        pytest.param('First {"a": 1}, then {"a": 2}.', '{"a": 2}', id="last without a marker"),
        pytest.param('The answer is {"a": 1}. Or {"a": 2}.', '{"a": 1}', id="first after it"),
        pytest.param('The answer is {"a": cafe}.', None, id="no JSON"),
        pytest.param('The answer is {a} or {"a": 1}.', '{"a": 1}', id="prose in brackets"),
        pytest.param('The answer is [{"a": 1}, {"a"', None, id="no part of a cut one"),
        pytest.param('The answer is {"a": NaN}.', None, id="no number"),
        pytest.param('The answer is {"a": 1', None, id="open"),
        pytest.param('The answer is "x".', None, id="a text alone"),
        pytest.param('The answer is {"e\u0301": "e\u0301"}', '{"\u00e9": "\u00e9"}', id="NFC"),
        pytest.param("He said \"so. The answer is {\"a\": 1}", '{"a": 1}', id="quote in prose"),
        pytest.param("", None, id="empty"),
    ],
)  # fmt: skip
def test_json_has_one_text_whatever_its_order(text, expected):
    found = extract(text, JSON, None)
    assert found.answer == expected
    if expected is not None:
        assert canonical(expected, JSON, None) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('The answer is {"age": 4, "name": "Ann"}', '{"age": 4, "name": "Ann"}'),
        ('The answer is {"age": 4}', None),
        ('The answer is {"name": "Ann", "age": "4"}', None),
        ('The answer is {"age": 4}. No: {"name": "Ann"}', '{"name": "Ann"}'),
    ],
)
def test_json_that_breaks_its_schema_is_no_answer(text, expected):
    assert extract(text, PERSON, None).answer == expected


def test_json_of_a_cut_text_counts_only_if_it_is_whole():
    assert extract('The answer is {"a": 1}. And', JSON, None, is_cut=True).answer == '{"a": 1}'
    assert extract('The answer is {"a": {"b": 1}', JSON, None, is_cut=True).answer is None


def test_json_of_a_text_with_a_marker_in_it_is_read_whole():
    assert canonical('{"a": "The answer is 5"}', JSON, None) == '{"a": "The answer is 5"}'


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"kind": "labels"}, "labels must be given"),
        ({"kind": "labels", "labels": ["a, b", "c"]}, "must have no comma"),
        ({"kind": "number", "json_schema": {}}, "json_schema applies only to"),
        ({"kind": "json", "json_schema": {"type": "objekt"}}, "in which type: 'objekt'"),
        ({"kind": "json", "json_schema": {"$ref": "http://x/y"}}, r"\$ref leads elsewhere"),
        ({"kind": "text", "decimal_mark": ","}, "decimal_mark applies only to"),
    ],
)
def test_answer_spec_of_a_set_with_a_broken_rule_is_refused(settings, rule):
    with pytest.raises(ValidationError, match=rule):
        AnswerSpec.model_validate(settings)


def _gold(answer, value):
    spec = DatasetSpec.model_validate(
        {
            "name": "mine",
            "source": {"type": "files", "train": "mine.jsonl"},
            "columns": {"gold_answer": "answer"},
            "answer": answer,
        }
    )
    row = {"question": "What?", "answer": value}
    return to_questions([row], spec, "train", where="mine")["gold_answer"][0]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(["login", "billing"], "billing, login"), ([], "none"), ("login;billing", "billing, login")],
)
def test_gold_labels_may_be_a_list(value, expected):
    assert _gold(TICKETS.model_dump(), value) == expected


@pytest.mark.parametrize("value", [{"name": "Ann", "age": 4.0}, '{"age": 4, "name": "Ann"}'])
def test_gold_json_may_be_a_structure_or_its_text(value):
    assert _gold(PERSON.model_dump(), value) == '{"age": 4, "name": "Ann"}'


def test_gold_json_that_breaks_the_schema_is_refused():
    with pytest.raises(DataError, match="must be a json"):
        _gold(PERSON.model_dump(), {"age": 4})
