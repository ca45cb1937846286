"""JSON answers that a server enforces, with the rationale before them."""

import json

import pytest
from jsonschema import Draft202012Validator

from qcrd_core.data.answers import AnswerSpec
from qcrd_core.data.completions import read_completion
from qcrd_core.data.prompts import render_messages
from qcrd_core.data.spec import DatasetSpec
from qcrd_core.data.structured import response_format, unfold

PERSON = AnswerSpec(
    kind="json",
    json_schema={
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string"}, "age": {"$ref": "#/$defs/age"}},
        "$defs": {"age": {"type": "integer"}},
    },
)
TREE = AnswerSpec(
    kind="json",
    json_schema={
        "properties": {
            "name": {"type": "string"},
            "also": {"$ref": "#/properties/name"},
            "children": {"type": "array", "items": {"$ref": "#"}},
        },
        "additionalProperties": False,
    },
)


def schema_of(spec):
    return response_format(spec)["json_schema"]["schema"]


@pytest.mark.parametrize(
    ("spec", "answer", "is_valid"),
    [
        (PERSON, {"name": "Ann", "age": 7}, True),
        (PERSON, {"name": "Ann", "age": "7"}, False),
        (PERSON, {"age": 7}, False),
        (TREE, {"name": "a", "children": [{"name": "b", "children": []}]}, True),
        (TREE, {"children": [{"nome": "b"}]}, False),
        (TREE, {"also": 1}, False),
    ],
)
def test_schema_of_the_whole_holds_for_the_answer_where_it_stands(spec, answer, is_valid):
    schema = schema_of(spec)
    Draft202012Validator.check_schema(schema)
    whole = {"rationale": "Because.", "answer": answer}
    assert Draft202012Validator(schema).is_valid(whole) is is_valid


def test_rationale_comes_first_because_servers_write_in_the_order_of_the_schema():
    assert list(schema_of(PERSON)["properties"]) == ["rationale", "answer"]
    assert not Draft202012Validator(schema_of(PERSON)).is_valid({"answer": {"name": "Ann"}})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '{"rationale": "Ann is 7. ", "answer": {"age": 7.0, "name": " Ann"}}',
            ("ok", "Ann is 7.", '{"age": 7, "name": "Ann"}'),
        ),
        ('{"rationale": "", "answer": {"name": "Ann"}}', ("ok", None, '{"name": "Ann"}')),
        ('{"rationale": "No name.", "answer": {"age": 7}}', ("no_answer", "No name.", None)),
        # A server that ignores the schema: read as without the setting.
        ('She says so. The answer is {"name": "Ann"}.', ("ok", "She says so.", '{"name": "Ann"}')),
    ],
)
def test_enforced_completion_is_read_into_rationale_and_answer(text, expected):
    read = read_completion(text, PERSON, None, is_structured=True)
    assert (read["status"], read["rationale"], read["answer"]) == expected
    assert read["text"] == text


def test_cut_completion_has_no_answer():
    text = '{"rationale": "It is Ann.", "answer": {"name": "An'
    read = read_completion(text, PERSON, None, is_cut=True, is_structured=True)
    assert (read["status"], read["answer"]) == ("no_answer", None)


def test_thought_before_an_enforced_completion_stays_apart():
    text = '<think>Hm.</think>{"rationale": "It is Ann.", "answer": {"name": "Ann"}}'
    read = read_completion(text, PERSON, None, is_structured=True)
    assert (read["reasoning"], read["rationale"]) == ("Hm.", "It is Ann.")


@pytest.mark.parametrize(
    "text",
    [
        '{"answer": 1}',
        '{"rationale": 1, "answer": 1}',
        '{"rationale": "", "answer": 1, "b": 1}',
        "[",
    ],
)
def test_other_documents_are_not_unfolded(text):
    assert unfold(text) is None


def test_demonstrations_have_the_form_that_the_server_enforces():
    shown = {"question": "Who?", "rationale": "She says so.", "answer": '{"name": "Zoë"}'}
    spec = DatasetSpec.model_validate(
        {
            "name": "people",
            "source": {"type": "files", "train": "people.jsonl"},
            "answer": PERSON.model_dump(),
            "prompt": {"demonstrations": [shown]},
        }
    )
    content = render_messages(spec, "Who now?", is_structured=True)[1]["content"]
    assert json.loads(content) == {"rationale": "She says so.", "answer": {"name": "Zoë"}}
    assert "Zoë" in content
