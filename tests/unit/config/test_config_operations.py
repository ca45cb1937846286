"""Sections that govern a student's use and train nothing anew."""

import pytest

from qcrd_core.errors import ConfigError
from tests.support.tiny_config import tiny_config


def test_rule_price_and_licence_do_not_rename_a_run():
    changed = tiny_config(
        promotion={"min_gain": 0.01},
        budget={"max_cost": 5, "sampled_price": 0.6},
        card={"license": "apache-2.0"},
    )

    assert changed.run_id("data") == tiny_config().run_id("data")


def test_cost_is_of_a_million_tokens():
    budget = tiny_config(budget={"prompt_price": 0.15, "sampled_price": 0.6}).budget

    assert budget.cost(2_000_000, 500_000) == pytest.approx(0.6)


def test_cost_of_a_teacher_of_ones_own_is_of_gpu_hours():
    budget = tiny_config(budget={"gpu_tokens_per_second": 2_500, "gpu_hour_price": 2}).budget

    # 2,500 a second are 9 million an hour.
    assert budget.gpu_hours(13_500_000) == pytest.approx(1.5)
    assert budget.cost(1_000_000, 13_500_000) == pytest.approx(3)


def test_price_of_a_gpu_hour_without_a_speed_is_refused():
    with pytest.raises(ConfigError, match=r"gpu_hour_price needs budget\.gpu_tokens_per"):
        tiny_config(budget={"gpu_hour_price": 2})


def test_limit_of_cost_without_a_price_is_refused():
    with pytest.raises(ConfigError, match=r"budget\.max_cost needs a price: budget\.prompt_price"):
        tiny_config(budget={"max_cost": 5})
