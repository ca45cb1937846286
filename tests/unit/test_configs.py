"""Shipped recipes: each loads, and its data set is a shipped one."""

from pathlib import Path

import pytest

from qcrd_core.config import load_config
from qcrd_core.datasets.spec import load_spec

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_config_loads_with_its_data_set(path):
    config = load_config(path)

    assert load_spec(config.data.dataset).name == config.data.dataset
    assert config.run.name == path.stem
