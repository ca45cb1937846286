"""A limit on tokens or cost, on a stub of the engine: 7 prompt and 2 sampled tokens a request."""

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from qcrd_core.errors import SamplingError
from qcrd_core.stages.sampling import check_budget
from qcrd_core.teacher.budget import Tokens, tokens_of
from tests.support.sampling import Sampling, make_config, numbered_questions
from tests.support.stub_engine import stub_engine

_QUESTIONS = 12  # 24 samples, in shards of 6


def _sampling(folder, engine, **budget):
    config = make_config(folder, [engine.url], budget=budget, concurrency=1)
    return Sampling(config, numbered_questions(_QUESTIONS))


@pytest.mark.parametrize(
    ("budget", "num_asked"),
    [
        ({"max_tokens": 90}, 10),
        ({"max_tokens": 91}, 11),
        ({"max_cost": 72e-6, "prompt_price": 1, "sampled_price": 1}, 8),
        # 2 sampled tokens at 3 a million: 6e-6 a request.
        ({"max_cost": 29e-6, "sampled_price": 3}, 5),
        ({"max_cost": 1, "sampled_price": 3}, 24),
    ],
)
def test_sampling_stops_at_the_limit_and_keeps_all_that_was_paid_for(tmp_path, budget, num_asked):
    with stub_engine() as engine:
        sampling = _sampling(tmp_path, engine, **budget)
        table = sampling.run()

    assert (engine.num_asked, table.height) == (num_asked, num_asked)


def test_sampling_with_higher_limit_asks_only_the_rest(tmp_path):
    with stub_engine() as engine:
        _sampling(tmp_path / "one", engine, max_tokens=90).run()
        resumed = _sampling(tmp_path / "one", engine).run()
        assert max(engine.asked.values()) == 1
        whole = _sampling(tmp_path / "two", engine).run()

    made = ("created_at",)
    assert_frame_equal(resumed.drop(made), whole.drop(made))


def test_started_again_with_the_limit_spent_asks_nothing(tmp_path):
    with stub_engine() as engine:
        for _ in range(3):
            sampling = _sampling(tmp_path, engine, max_tokens=90)
            sampling.run()

    assert engine.num_asked == 10
    sentence = (
        r"The budget is used up \(budget.max_tokens = 90; 90 tokens were used\), and 14 of 24 "
        r"samples are still missing. Everything that was paid for is kept"
    )
    with pytest.raises(SamplingError, match=sentence):
        check_budget(sampling.meter(), sampling.plan(), num_sampled=0)


def test_check_budget_with_nothing_missing_is_content(tmp_path):
    with stub_engine() as engine:
        sampling = _sampling(tmp_path, engine, max_tokens=24 * 9)
        sampling.run()

    assert sampling.meter().is_spent
    check_budget(sampling.meter(), sampling.plan(), num_sampled=0)


def test_meter_notes_tokens_and_cost(tmp_path):
    with stub_engine() as engine:
        sampling = _sampling(tmp_path, engine, max_cost=1, prompt_price=1000, sampled_price=5000)
        sampling.run()

    assert sampling.meter().note == "216 tokens, cost 0.408 of 1"


def test_tokens_of_ten_million_prompts_do_not_wrap():
    row = {"run_id": "run-1", "num_prompt_tokens": 2_000_000_000, "num_tokens": 1_500_000_000}
    types = {"num_prompt_tokens": pl.Int32, "num_tokens": pl.Int32}
    frame = pl.DataFrame([row, row, {**row, "run_id": "another"}], schema_overrides=types)
    assert tokens_of(frame, "run-1") == Tokens(4_000_000_000, 3_000_000_000)
