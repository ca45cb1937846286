"""Settings of `teacher.condense`: what is refused, who rewrites, and what a run is named after."""

from pathlib import Path

import pytest

from tests.support.tiny_config import refusal, tiny_config

HUB = {"type": "hub", "name": "none"}
IMPORTED = {"type": "imported", "generation": "abcabcabcabc"}
DATA = "0" * 16


def _teacher(teacher=HUB, **condense):
    return {"model": teacher, "condense": {"max_tokens": 64, **condense}}


@pytest.mark.parametrize(
    ("teacher", "sentence"),
    [
        (_teacher(IMPORTED), "teacher.condense.model must name a model that rewrites imported"),
        (_teacher(max_token=1), "teacher.condense.max_token is not a setting"),
        (_teacher(endpoints=["http://a/v1"]), "teacher.condense.endpoints applies only when"),
        (_teacher(extra_body={"n": 2}), "teacher.condense.extra_body must not hold n, which"),
        (_teacher(max_tokens=257), "teacher.condense.max_tokens must be at most student.max_ta"),
        ({"model": HUB, "condense": {}}, "teacher.condense.max_tokens must be set"),
        (_teacher(model=IMPORTED), "teacher.condense.model.generation is not a setting"),
    ],
)
def test_contradictions_are_refused_in_one_sentence(teacher, sentence):
    assert refusal(teacher=teacher).startswith(sentence)


def test_teacher_rewrites_with_its_own_settings_but_once():
    said = {"system_prompt": "S", "extra_body": {"a": 1}, "reuse": ["x"], "stop_when_settled": 0.1}
    teacher = tiny_config(teacher={**_teacher(), **said}).teacher
    rewriter = teacher.rewriter

    assert (rewriter.model, rewriter.system_prompt) == (teacher.model, "S")
    assert (rewriter.num_samples, rewriter.reuse, rewriter.stop_when_settled) == (1, (), None)
    assert rewriter.extra_body == {"a": 1}
    less = tiny_config(teacher={**_teacher(extra_body={}), **said}).teacher
    assert less.rewriter.extra_body == {}


def test_another_model_gets_nothing_that_is_said_to_the_teacher():
    condense = {"max_tokens": 64, "model": "./small", "endpoints": ["http://b/v1"]}
    said = {"system_prompt": "S", "extra_body": {"a": 1}, "think_tags": ["[", "]"], "top_k": 3}
    teacher = tiny_config(
        teacher={"model": HUB, "endpoints": ["http://a/v1"], "condense": condense, **said}
    ).teacher
    rewriter = teacher.rewriter

    assert rewriter.model.path == Path("small")
    assert [endpoint.url for endpoint in rewriter.endpoints] == ["http://b/v1"]
    assert (rewriter.system_prompt, rewriter.extra_body, rewriter.top_k) == (None, {}, None)
    assert rewriter.added_to_identity() == {}


def test_run_is_named_after_what_condenses_and_not_after_where():
    plain = tiny_config(teacher={"model": HUB}).run_id(DATA)
    here, there = (
        tiny_config(teacher=_teacher(IMPORTED, model=HUB, endpoints=[url])).run_id(DATA)
        for url in ("http://a/v1", "http://b/v1")
    )
    shorter = tiny_config(teacher=_teacher(max_tokens=32)).run_id(DATA)

    assert tiny_config(teacher={"model": HUB, "condense": None}).run_id(DATA) == plain
    assert here == there
    assert len({plain, here, shorter, tiny_config(teacher=_teacher()).run_id(DATA)}) == 4
