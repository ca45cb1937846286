"""A misspelt key is refused with the nearest one, in files, overrides and Prefect's form."""

import pytest
from pydantic import TypeAdapter, ValidationError

from qcrd_core.config.names import settings_of, unknown_setting
from qcrd_core.config.run import RunConfig, load_config
from qcrd_core.data.spec import DatasetSpec
from qcrd_core.errors import ConfigError
from tests.support.tiny_config import refusal, tiny_config


def test_misspelt_key_is_refused_with_the_nearest():
    message = refusal(training={"num_round": 3})
    assert message == (
        "training.num_round is not a setting (tiny.yaml). Did you mean training.num_rounds?"
    )


@pytest.mark.parametrize(
    ("section", "content", "nearest"),
    [
        ("trainig", {}, "training"),
        (
            "teacher",
            {"model": "m", "endpoints": [{"urls": "http://a/v1"}]},
            "teacher.endpoints.url",
        ),
        ("student", {"model": {"type": "scratch", "hidden": 32}}, "student.model.hidden_size"),
        ("student", {"model": "m", "lora": {"ranks": 4}}, "student.lora.rank"),
    ],
)
def test_misspelt_key_is_found_at_any_depth(section, content, nearest):
    assert refusal(**{section: content}).endswith(f"Did you mean {nearest}?")


def test_key_like_no_other_names_the_command_that_lists_all():
    message = refusal(training={"xyzzy": 3})
    assert message == (
        "training.xyzzy is not a setting (tiny.yaml). Run `qcrd settings` to list all."
    )


def test_each_misspelt_key_has_a_line():
    with pytest.raises(ConfigError) as caught:
        tiny_config(training={"num_round": 3}, votes={})
    assert len(str(caught.value).splitlines()) == 2


def test_misspelt_override_is_refused_with_the_nearest(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("run: {name: a, store: s}")
    with pytest.raises(ConfigError, match=r"Did you mean teacher.num_samples\?"):
        load_config(path, ("teacher.num_smaples=3",))


def test_misspelt_key_in_the_form_is_refused_with_the_nearest():
    content = tiny_config().model_dump(mode="json")
    content["training"]["num_round"] = 3
    with pytest.raises(ValidationError, match=r"Did you mean training.num_rounds\?"):
        TypeAdapter(RunConfig).validate_python(content)


def test_key_of_another_variant_is_refused_in_one_line():
    message = refusal(student={"model": {"type": "hub", "name": "t5", "dropout": 0.1}})
    assert message.startswith("student.model.dropout is not a setting here (tiny.yaml)")


def test_variants_of_a_section_share_their_keys():
    settings = settings_of(RunConfig)

    assert settings["student.model.type"].holds_settings is False
    assert len(settings["student.model.type"].fields) == 3
    assert settings["teacher.endpoints"].holds_settings is True
    assert "source.train" in settings_of(DatasetSpec)


def test_name_with_a_control_character_is_shown_escaped():
    problem = unknown_setting("a\x00b", [], "qcrd settings")
    assert problem.what == r"'a\x00b' is not a setting"
