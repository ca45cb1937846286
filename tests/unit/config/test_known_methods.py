"""A method's name in a run's file means the settings that a bench measures under it."""

from typing import get_args

import pytest
import yaml

from qcrd_core.config.known_methods import METHODS, Method, MethodName
from qcrd_core.config.names import settings_of
from qcrd_core.config.run import RunConfig, read_stored_config
from qcrd_core.errors import ConfigError
from tests.support.tiny_config import tiny_config

DATA = "0" * 16


def test_names_in_a_file_are_those_of_a_bench():
    assert set(get_args(MethodName)) == METHODS.keys()
    assert {n for m in METHODS.values() for n in m.settings} <= settings_of(RunConfig).keys()


def test_method_is_its_settings():
    named = tiny_config(method="rft", negatives={}, loss={}, voting={})

    assert (named.loss.beta, named.negatives.verify, named.voting.positives) == (
        0.0,
        "promote",
        "gold",
    )
    written = tiny_config(
        voting={"positives": "gold"},
        negatives={
            "lag": 1,
            "sampling_temperature": 1.0,
            "num_samples": 3,
            "verify": "promote",
            "teacher_minority": False,
        },
        loss={"quality_weights": False, "pos_select": "sample", "beta": 0},
    )
    assert named.run_id(DATA) == written.run_id(DATA)


def test_setting_beside_a_method_may_agree_or_concern_something_else():
    config = tiny_config(method="rft", negatives={"lag": 1, "max_new_tokens": 9}, loss={})
    assert config.negatives.max_new_tokens == 9


def test_setting_that_contradicts_the_method_is_refused():
    with pytest.raises(ConfigError) as caught:
        tiny_config(method="rft", negatives={"lag": 2}, loss={"beta": 0.2})
    assert str(caught.value) == (
        "method=rft sets negatives.lag to 1, and it is 2; loss.beta to 0.0, and it is 0.2. Leave "
        "out the method or the setting (tiny.yaml)."
    )


def test_unknown_method_is_refused():
    with pytest.raises(ConfigError, match=r"^method must be 'finetune', "):
        tiny_config(method="best")


@pytest.mark.parametrize("changed", [{}, {"loss.pos_select": "mean"}])
def test_stored_run_is_read_as_it_was_when_its_method_means_something_else(changed, monkeypatch):
    config = tiny_config(method="dss_sc", negatives={}, loss={})
    stored = yaml.safe_dump(config.model_dump(mode="json"))
    method = METHODS["dss_sc"]
    later = Method(method.description, {**method.settings, **changed})
    monkeypatch.setitem(METHODS, "dss_sc", later)

    assert read_stored_config(stored, "stored").run_id(DATA) == config.run_id(DATA)


def test_section_that_is_no_mapping_is_refused_in_a_sentence():
    with pytest.raises(ConfigError, match=r"^loss must be a section of settings; got 3 "):
        tiny_config(method="rft", negatives={}, loss=3)
