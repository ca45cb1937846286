"""What a plan refuses before the teacher is asked."""

import pytest

from qcrd_core.data.answers import AnswerSpec
from qcrd_core.data.spec import load_spec
from qcrd_core.errors import ConfigError
from qcrd_core.stages.plan import _check_answers, _check_explanations
from tests.support.tiny_config import tiny_config

LABEL = AnswerSpec(kind="label", labels=("yes", "no"))
STUDENT = {"model": {"type": "scratch"}, "explain_target": "rationale_and_answer"}
READERS = [{"evaluation": {"infer": "vote_k"}}, {"negatives": {"verify": "drop"}}]


def _spec(answer):
    return load_spec("word_problems").model_copy(update={"answer": answer})


@pytest.mark.parametrize("sections", READERS)
def test_labels_read_from_rationales_must_be_learnt_with_them(sections):
    with pytest.raises(ConfigError, match=r"student\.explain_target must be rationale_and_answer"):
        _check_explanations(tiny_config(**sections), _spec(LABEL))
    learnt = {**sections, "student": STUDENT}
    _check_explanations(tiny_config(**learnt), _spec(LABEL))


@pytest.mark.parametrize("sections", READERS)
def test_numbers_are_read_from_rationales_as_they_are(sections):
    _check_explanations(tiny_config(**sections), load_spec("word_problems"))


def test_labels_that_nothing_reads_from_rationales_need_no_answer_there():
    _check_explanations(tiny_config(), _spec(LABEL))


def test_rewrites_cannot_be_verified():
    verified = AnswerSpec.model_validate({"kind": "verifier", "verifier": "units:canonical"})
    condense = {"model": {"type": "hub", "name": "t"}, "condense": {"max_tokens": 64}}
    with pytest.raises(
        ConfigError, match=r"teacher\.condense must be null for answers of kind ver"
    ):
        _check_explanations(tiny_config(teacher=condense), _spec(verified))


def test_parts_vote_only_if_answers_have_parts():
    by_parts = tiny_config(voting={"tie": "parts"})
    with pytest.raises(ConfigError, match=r"voting\.tie=parts applies only to .* got label"):
        _check_answers(by_parts, _spec(LABEL))
    _check_answers(by_parts, _spec(AnswerSpec(kind="json")))


@pytest.mark.parametrize("answer", [LABEL, AnswerSpec(kind="json")])
def test_structured_output_needs_a_schema(answer):
    teacher = {"model": {"type": "hub", "name": "t"}, "structured_output": True}
    with pytest.raises(ConfigError, match=r"teacher\.structured_output needs answers of kind json"):
        _check_answers(tiny_config(teacher=teacher), _spec(answer))
    _check_answers(tiny_config(teacher=teacher), _spec(AnswerSpec(kind="json", json_schema={})))
