"""Several teachers: how they are written, what is refused, and what a run is named after."""

import pytest
import yaml

from qcrd_core.config.run import load_config, validate_config
from qcrd_core.errors import ConfigError
from tests.support.tiny_config import refusal, tiny_config

DATA = "0" * 16
FIRST = {"model": "first", "num_samples": 5, "sampling_temperature": 0.5}
OTHER = {"model": "other", "num_samples": 3, "api": "completions"}


def _named(*others, **teacher):
    return tiny_config(teacher={**FIRST, **teacher, "others": list(others)}).run_id(DATA)


def test_each_teacher_is_alone_in_a_configuration_with_its_own_settings():
    config = tiny_config(teacher={**FIRST, "others": [OTHER]})

    first, other = (one.teacher for one in config.per_teacher)
    assert (first.model.name, first.num_samples, first.api) == ("first", 5, "chat")
    assert (other.model.name, other.num_samples, other.api) == ("other", 3, "completions")
    assert other.sampling_temperature == 0.7  # the default, not the first teacher's
    assert not first.others
    assert not other.others


def test_one_teacher_is_the_configuration_itself_and_names_nothing_of_several():
    config = tiny_config(teacher=FIRST)

    assert config.per_teacher == (config,)
    assert "others" not in config.model_dump()["teacher"]
    assert "weights" not in config.model_dump()["voting"]


def test_stored_settings_are_read_as_they_were():
    config = tiny_config(teacher={**FIRST, "others": [OTHER]}, voting={"weights": "precision"})
    stored = yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json")))

    assert validate_config(stored, "config.yaml") == config


def test_run_is_named_after_what_each_teacher_is_asked_and_not_after_where():
    elsewhere = {"endpoints": ["http://gpu2:8000/v1"], "concurrency": 4, "reuse": ["samples"]}

    assert _named(OTHER) == _named({**OTHER, **elsewhere})
    names = [
        _named(),
        _named(OTHER),
        _named({**OTHER, "num_samples": 4}),
        _named({**OTHER, "system_prompt": "Think.", "api": "chat"}),
        _named({**OTHER, "rationale": "both"}),
        _named(OTHER, {**OTHER, "seed": 1}),
        tiny_config(teacher={**FIRST, "others": [OTHER]}, voting={"weights": "agreement"}).run_id(
            DATA
        ),
    ]
    assert len(set(names)) == len(names)
    assert _named() == tiny_config(teacher=FIRST).run_id(DATA)


def test_two_teachers_with_one_sample_each_can_vote():
    config = tiny_config(teacher={**FIRST, "num_samples": 1, "others": [{"model": "other"}]})

    assert sum(teacher.num_samples for teacher in config.teachers) == 6


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        (
            {"teacher": {**FIRST, "stop_when_settled": 0.05, "others": [OTHER]}},
            "teacher.stop_when_settled applies only when one teacher is asked, because a vote of "
            "several settles by all of them; teacher.others has 1",
        ),
        (
            {"voting": {"weights": "precision"}},
            "voting.weights applies only when teacher.others has further teachers; it is precision",
        ),
        (
            {"teacher": {**FIRST, "others": [{**OTHER, "system_prompt": "Think."}]}},
            "teacher.system_prompt needs teacher.api=chat; it is completions (tiny.yaml, "
            "teacher.others.0)",
        ),
        (
            {"teacher": {**FIRST, "others": [{**OTHER, "condense": {"max_tokens": 64}}]}},
            "teacher.others.condense is not a setting (tiny.yaml). Did you mean",
        ),
        (
            {
                "run": {"ray_address": "auto"},
                "teacher": {**FIRST, "endpoints": ["http://gpu1/v1"], "others": [OTHER]},
            },
            "run.ray_address needs running servers in teacher.endpoints",
        ),
    ],
    ids=["settled", "weights", "prompt", "condense", "ray"],
)
def test_contradictions_of_several_teachers_are_refused_in_one_sentence(sections, sentence):
    assert sentence in refusal(**sections)


def _written(folder):
    path = folder / "run.yaml"
    content = tiny_config(teacher={**FIRST, "others": [OTHER]}).model_dump(mode="json")
    path.write_text(yaml.safe_dump(content))
    return path


def test_teachers_are_overridden_as_a_list_or_one_by_its_place(tmp_path):
    path = _written(tmp_path)

    whole = load_config(path, ("teacher.others=[{model: a}, {model: b, num_samples: 2}]",))
    one = load_config(path, ("teacher.others.0.num_samples=7", "teacher.num_samples=4"))

    assert [teacher.num_samples for teacher in whole.teachers] == [5, 5, 2]
    assert [teacher.num_samples for teacher in one.teachers] == [4, 7]


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "teacher.others.1.num_samples=7",
            "must name one of the 1 sections of its list by its place, from 0; got 1",
        ),
        ("teacher.others.model=b", "must name a setting of a section in a list"),
        ("teacher.others.0.num_sample=7", "Did you mean teacher.others.num_samples?"),
    ],
)
def test_override_of_no_teacher_is_refused(tmp_path, override, sentence):
    with pytest.raises(ConfigError, match=sentence.replace("?", r"\?")):
        load_config(_written(tmp_path), (override,))
