"""`run.ray_address`: what goes together."""

import pytest

from qcrd_core.errors import ConfigError
from tests.support.tiny_config import tiny_config

_RAY = {"ray_address": "auto", "num_samplers": 4}
_SERVED = {"model": {"type": "hub", "name": "m"}, "endpoints": ["http://gpu1:8000/v1"]}


def _config(run, teacher):
    return tiny_config(run=run, teacher=teacher)


def test_runner_is_no_part_of_the_runs_name():
    assert _config(_RAY, _SERVED).run_id("x") == _config({}, _SERVED).run_id("x")


@pytest.mark.parametrize(
    "teacher", [_SERVED, {"model": {"type": "imported", "generation": "0123456789ab"}}]
)
def test_ray_with_running_servers_or_without_a_teacher_is_fine(teacher):
    assert _config(_RAY, teacher).run.num_samplers == 4


def test_ray_without_running_servers_is_refused():
    message = (
        r"run\.ray_address needs running servers in teacher\.endpoints; it is null.*its own vLLM"
    )
    with pytest.raises(ConfigError, match=message):
        _config(_RAY, {"model": {"type": "hub", "name": "m"}})


def test_samplers_without_a_cluster_are_refused():
    message = r"run\.num_samplers applies only when run\.ray_address names a cluster; it is null"
    with pytest.raises(ConfigError, match=message):
        _config({"num_samplers": 2}, _SERVED)
