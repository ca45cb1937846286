"""Settings of the method that contradict each other are refused at load, in one sentence."""

import pytest

from qcrd_core.config import validate_config
from qcrd_core.errors import ConfigError


def _load(**sections):
    tiny = {"model": {"type": "scratch"}}
    content = {
        "run": {"name": "tiny", "store": "s"},
        "data": {"dataset": "word_problems"},
        "teacher": {"model": {"type": "hub", "name": "none"}},
        "discriminator": tiny,
        "student": tiny,
    }
    return validate_config({**content, **sections}, "tiny.yaml")


def _refusal(**sections):
    with pytest.raises(ConfigError) as caught:
        _load(**sections)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_options_of_the_loss_load_and_default_to_the_papers_reading():
    loss = _load().loss
    assert (loss.pos_select, loss.neg_select) == ("min", "max")
    _load(loss={"pos_select": "softmin", "softmin_temperature": 0.5, "neg_select": "min"})


def test_unknown_selection_is_refused_with_the_known_ones():
    assert "'min', 'max', 'mean'" in _refusal(loss={"pos_select": "best"})


def test_softmin_temperature_without_softmin_is_refused():
    message = _refusal(loss={"softmin_temperature": 0.5})
    assert message.startswith("loss.softmin_temperature must be left alone unless loss.pos_select")
    assert "got 0.5 with min (tiny.yaml" in message


def test_verify_without_student_negatives_is_refused():
    message = _refusal(negatives={"verify": "drop", "student": False})
    assert message.startswith("negatives.verify must be none where negatives.student is false; got")
    _load(negatives={"verify": "promote"})


@pytest.mark.parametrize("name", ["pos_select", "neg_select"])
def test_weighted_choice_without_quality_weights_is_refused(name):
    message = _refusal(loss={name: "weighted", "quality_weights": False})
    assert message.startswith(f"loss.{name} must be another than weighted where")


@pytest.mark.parametrize("setting", [{"num_votes": 3}, {"sampling_temperature": 1}], ids=str)
def test_settings_of_a_vote_without_one_are_refused(setting):
    (name,) = setting
    message = _refusal(evaluation={"infer": "explain_then_predict", **setting})
    assert message.startswith(f"evaluation.{name} must be left alone unless evaluation.infer is")
    assert _load(evaluation={"infer": "vote_k", **setting}).evaluation.infer == "vote_k"


def test_vote_of_one_is_refused():
    assert "evaluation.num_votes must be" in _refusal(
        evaluation={"infer": "vote_k", "num_votes": 1}
    )


def test_sharpness_of_a_hinge_is_refused():
    message = _refusal(loss={"sharpness": 2})
    assert message.startswith("loss.sharpness must be left alone unless loss.neg_loss is softplus")
    _load(loss={"sharpness": 2, "neg_loss": "pairwise"})


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ({"loss": {"beta": 0}}, "loss.beta is 0"),
        ({"negatives": {"teacher_minority": False, "student": False}}, "negatives.* names no"),
    ],
    ids=["beta", "sources"],
)
@pytest.mark.parametrize(
    "option",
    [{"neg_select": "min"}, {"neg_loss": "pairwise"}, {"neg_tokens": "after_divergence"}],
    ids=str,
)
def test_options_of_negatives_without_any_negative_are_refused(sections, reason, option):
    sections = {**sections, "loss": {**sections.get("loss", {}), **option}}
    (name,) = option
    message = _refusal(**sections)
    assert message.startswith(f"loss.{name} must be left alone where no negative is learnt from")
    assert reason in message
