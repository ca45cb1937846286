"""The smallest valid configuration, for tests of single settings."""

from typing import Any

import pytest

from qcrd_core.config.run import RunConfig, validate_config
from qcrd_core.errors import ConfigError


def tiny_config(**sections: Any) -> RunConfig:
    """Validate the smallest configuration with some sections replaced; `run` is added to."""
    tiny = {"model": {"type": "scratch"}}
    content = {
        "data": {"dataset": "word_problems"},
        "teacher": {"model": {"type": "hub", "name": "none"}},
        "discriminator": tiny,
        "student": tiny,
        **sections,
        "run": {"name": "tiny", "store": "s", **sections.get("run", {})},
    }
    return validate_config(content, "tiny.yaml")


def refusal(**sections: dict[str, Any]) -> str:
    """The one line with which such a configuration is refused."""
    with pytest.raises(ConfigError) as caught:
        tiny_config(**sections)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)
