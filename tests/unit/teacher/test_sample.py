"""Sampling against a stub of the engine: resume, retries, failures, the table's independence."""

import os
from collections import Counter
from dataclasses import replace

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from qcrd_core.errors import DataError, SamplingError
from qcrd_core.ids import derive_seed
from qcrd_core.teacher.plan import open_generation
from qcrd_core.teacher.servers.choices import read_choices
from qcrd_core.teacher.servers.dispatch import _FAILURES_TOGETHER
from tests.support.sampling import Sampling, make_config, numbered_questions
from tests.support.stub_engine import stub_engine

_MADE = ("created_at",)


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch):
    monkeypatch.setattr("qcrd_core.teacher.servers.dispatch._FIRST_PAUSE_SECONDS", 0.01)


def test_sample_shard_writes_every_column(tmp_path):
    with stub_engine() as engine:
        table = Sampling(make_config(tmp_path, [engine.url]), numbered_questions(1)).run()
    row = table.row(0, named=True)
    assert row["status"] == "ok"
    assert row["text"].startswith("I think of")
    assert row["answer"] in row["text"]
    assert table["seed"].to_list() == [derive_seed(3, "q000"), derive_seed(3, "q000") + 1]
    assert row["cumulative_logprob"] == -1.5
    assert (row["num_prompt_tokens"], row["num_tokens"], row["finish_reason"]) == (7, 2, "stop")


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_request_carries_every_sampling_parameter(tmp_path, api):
    with stub_engine() as engine:
        sampling = Sampling(make_config(tmp_path, [engine.url], api=api), numbered_questions(1))
        sampling.run()
    (body,) = engine.bodies
    assert (body["n"], body["seed"]) == (2, derive_seed(3, "q000"))
    assert body["temperature"] == 0.7
    assert body["top_p"] == 1.0
    assert body["max_tokens"] == 16
    assert body["stop"] == ["\n\n"]
    assert body["logprobs"] == (True if api == "chat" else 0)


def test_resume_after_half_the_shards_asks_nothing_twice(tmp_path):
    with stub_engine() as engine:
        sampling = Sampling(make_config(tmp_path, [engine.url]), numbered_questions(12))
        half = sampling.run(max_shards=2)
        whole = sampling.run()
    assert (half.height, whole.height) == (12, 24)
    assert engine.num_asked == 24
    assert max(engine.asked.values()) == 1


def test_raising_num_samples_asks_only_the_rest(tmp_path):
    questions = numbered_questions(4)
    with stub_engine() as engine:
        before = Sampling(make_config(tmp_path, [engine.url], num_samples=2), questions).run()
        after = Sampling(make_config(tmp_path, [engine.url], num_samples=5), questions).run()
    assert engine.num_asked == 20
    assert max(engine.asked.values()) == 1
    assert_frame_equal(after.filter(pl.col("sample_idx") < 2), before)


def test_lowering_num_samples_reads_only_the_first(tmp_path):
    questions = numbered_questions(2)
    with stub_engine() as engine:
        Sampling(make_config(tmp_path, [engine.url], num_samples=5), questions).run()
        table = Sampling(make_config(tmp_path, [engine.url], num_samples=3), questions).run()
    assert table["sample_idx"].to_list() == [0, 1, 2, 0, 1, 2]
    assert engine.num_asked == 10


@pytest.mark.parametrize(("concurrency", "together"), [(1, 1), (3, 1), (16, 2)])
def test_concurrency_bounds_samples_in_flight(tmp_path, concurrency, together):
    with stub_engine(delay_seconds=0.01) as engine:
        config = make_config(
            tmp_path, [engine.url], concurrency=concurrency, questions_per_shard=20
        )
        Sampling(config, numbered_questions(20)).run()
    assert engine.max_in_flight == concurrency
    # A request has at most an eighth of them.
    assert {body["n"] for body in engine.bodies} == {together}


def test_missing_samples_in_a_row_are_asked_for_together(tmp_path):
    questions = numbered_questions(2)
    with stub_engine() as engine:
        whole = Sampling(make_config(tmp_path / "whole", [engine.url], num_samples=8), questions)
        table = whole.run()
        sampling = Sampling(make_config(tmp_path, [engine.url], num_samples=8), questions)
        stored = table.filter(pl.col("sample_idx").is_in([1, 2, 5]))
        plan = sampling.plan()
        open_generation(sampling.store, replace(plan, reused=stored))
        engine.bodies.clear()
        resumed = sampling.run()
    first = derive_seed(3, "q000")
    asked = sorted((body["seed"] - first, body["n"]) for body in engine.bodies)
    assert [pair for pair in asked if 0 <= pair[0] < 8] == [(0, 1), (3, 2), (6, 2)]
    assert_frame_equal(resumed.drop(_MADE), table.drop(_MADE))


def _sampled_by(folder, num_questions=30, **engine):
    """Table and sizes of requests of a run with 5 samples a question, 40 in flight."""
    with stub_engine(delay_seconds=0.01, **engine) as server:
        config = make_config(
            folder, [server.url], num_samples=5, concurrency=40, questions_per_shard=100
        )
        table = Sampling(config, numbered_questions(num_questions)).run()
    return table.drop(_MADE), Counter(body["n"] for body in server.bodies)


@pytest.mark.parametrize("most_samples", [1, 2])
def test_server_that_draws_fewer_than_asked_is_asked_for_one_at_a_time(tmp_path, most_samples):
    whole, _ = _sampled_by(tmp_path / "whole")
    table, sizes = _sampled_by(tmp_path, most_samples=most_samples)
    assert_frame_equal(table, whole)
    assert sizes[5] <= 8
    # What those answers held is kept.
    assert sizes[1] == 150 - most_samples * sizes[5]


@pytest.mark.parametrize("status", [400, 501])
def test_server_that_fails_at_several_is_asked_for_one_at_a_time(tmp_path, status):
    whole, _ = _sampled_by(tmp_path / "whole")
    table, sizes = _sampled_by(tmp_path, fault=lambda body, _: status if body["n"] > 1 else None)
    assert_frame_equal(table, whole)
    assert sizes[1] == 150
    # A refusal is believed at once. A 501 might pass, so each of the 30 requests may be repeated.
    assert sizes[5] <= 30 * (1 if status == 400 else _FAILURES_TOGETHER)


def test_server_that_counts_all_samples_together_is_asked_for_them_together(tmp_path):
    table, sizes = _sampled_by(tmp_path, has_logprobs=False)
    assert sizes == {5: 30}
    # The stub counts ten tokens for five texts of almost equal length.
    totals = table.group_by("question_id").agg(pl.col("num_tokens").sum())
    assert totals["num_tokens"].to_list() == [10] * 30
    assert table["num_tokens"].is_between(1, 3).all()
    assert table["cumulative_logprob"].null_count() == 150


@pytest.mark.parametrize("indices", [[0, 2, 1], [0, 2, 3], [2, 0, 4]])
def test_choice_belongs_to_the_seed_of_its_index(indices):
    choices = [
        {"index": index, "text": f"text {index}", "logprobs": {"token_logprobs": [-1.0]}}
        for index in indices
    ]
    found = read_choices(choices, None)
    # Behind a gap nothing is known.
    assert [item.text for item in found] == [f"text {k}" for k in range(1 + 2 * (1 in indices))]


def test_table_is_equal_for_other_shards_threads_and_concurrency(tmp_path):
    questions = numbered_questions(9)
    with stub_engine() as engine:
        one = Sampling(make_config(tmp_path / "one", [engine.url], concurrency=1), questions).run()
        config = make_config(
            tmp_path / "two", [engine.url], concurrency=8, questions_per_shard=2, num_samples=2
        )
        two = Sampling(config, questions.reverse()).run()
    assert_frame_equal(one.drop(_MADE), two.drop(_MADE))


@pytest.mark.parametrize("fault", [429, 500, 503, "drop"])
def test_temporary_fault_is_retried(tmp_path, fault):
    with stub_engine(fault=lambda _, num_before: fault if num_before < 2 else None) as engine:
        sampling = Sampling(make_config(tmp_path, [engine.url]), numbered_questions(2))
        table = sampling.run()
    assert table["status"].to_list() == ["ok"] * 4
    assert set(engine.asked.values()) == {3}
    assert sum(server.num_failures for server in sampling.servers) == 4


def test_lasting_fault_raises_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("qcrd_core.teacher.servers.dispatch._MAX_RETRIES", 2)
    questions = {derive_seed(3, f"q{number:03}"): f"q{number:03}" for number in range(6)}
    answered: list[str] = []

    def fault(body, _):
        # The order of shards is random: the three questions of whichever comes first are answered.
        question = questions[body["seed"]]
        if question not in answered and len(answered) == 3:
            return 500
        answered.append(question)
        return None

    with stub_engine(fault=fault) as engine:
        # One shard after the other: the first is finished when the second fails.
        config = make_config(tmp_path, [engine.url], shards_in_flight=1)
        sampling = Sampling(config, numbered_questions(6))
        with pytest.raises(
            SamplingError, match=r"(HTTP 500|disconnected).*Finished shards are kept"
        ):
            sampling.run()
    # The first shard stands; the second, whose requests failed, has left nothing.
    assert answered
    assert sampling.table()["question_id"].unique().sort().to_list() == sorted(answered)


def test_refused_request_becomes_a_failed_row_that_is_not_asked_again(tmp_path):
    seed = derive_seed(3, "q001")
    with stub_engine(fault=lambda body, _: 400 if body["seed"] == seed else None) as engine:
        sampling = Sampling(make_config(tmp_path, [engine.url]), numbered_questions(3))
        sampling.run()
        table = sampling.run()
    failed = table.filter(pl.col("status") == "failed").row(0, named=True)
    assert (failed["question_id"], failed["sample_idx"], failed["text"]) == ("q001", 0, None)
    assert failed["error"] == 'HTTP 400: {"error": {"message": "stub says\\n400"}}'
    assert table["status"].to_list() == ["ok", "ok", "failed", "ok", "ok", "ok"]
    assert sampling.results[0].num_failed == 1
    # Both samples of the question together, then each alone.
    assert engine.num_asked == 8


def test_shard_refused_as_a_whole_raises_and_writes_nothing(tmp_path):
    with stub_engine(fault=lambda *_: 400) as engine:
        sampling = Sampling(make_config(tmp_path, [engine.url]), numbered_questions(3))
        with pytest.raises(
            SamplingError, match="refused all 6 requests of a shard, the first with: HTTP 400"
        ):
            sampling.run()
    assert sampling.table().is_empty()


def test_wrong_key_raises_at_once(tmp_path):
    with stub_engine(fault=lambda *_: 401) as engine:
        sampling = Sampling(make_config(tmp_path, [engine.url]), numbered_questions(3))
        with pytest.raises(SamplingError, match=r"HTTP 401.*Check QCRD_API_KEY"):
            sampling.run()


def test_api_key_comes_from_the_environment_alone(tmp_path, monkeypatch):
    monkeypatch.setitem(os.environ, "QCRD_API_KEY", "secret")
    with stub_engine() as engine:
        sampling = Sampling(make_config(tmp_path, [engine.url]), numbered_questions(1))
        sampling.run()
    assert engine.headers_sent["Authorization"] == "Bearer secret"
    assert b"secret" not in b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())


def test_endpoint_with_another_model_is_refused(tmp_path):
    with stub_engine(model="other") as engine:
        sampling = Sampling(make_config(tmp_path, [engine.url]), numbered_questions(1))
        with pytest.raises(SamplingError, match=r"must serve 'stub'; got \['other'\]"):
            sampling.run()


def test_unreachable_endpoint_is_refused(tmp_path):
    sampling = Sampling(make_config(tmp_path, ["http://127.0.0.1:9/v1"]), numbered_questions(1))
    with pytest.raises(SamplingError, match=r"127.0.0.1:9/v1/models must answer"):
        sampling.run()


def test_question_longer_than_the_context_is_refused_before_sampling(tmp_path):
    questions = numbered_questions(4).with_columns(
        question=pl.when(pl.col("question_id") == "q002")
        .then(pl.lit("long " * 60))
        .otherwise("question")
    )
    with stub_engine(max_model_len=64) as engine:
        sampling = Sampling(make_config(tmp_path, [engine.url]), questions)
        with pytest.raises(DataError, match=r"context of 64 tokens; got 62 \+ 16 for .*'q002'"):
            sampling.run()
    assert engine.num_asked == 0


def test_samples_of_one_question_go_to_one_of_two_servers(tmp_path):
    with stub_engine() as first, stub_engine() as second:
        config = make_config(tmp_path, [first.url, second.url], num_samples=4)
        Sampling(config, numbered_questions(2)).run()
    assert len({prompt for prompt, _ in first.asked}) == 1
    assert len({prompt for prompt, _ in second.asked}) == 1


def test_server_that_fails_is_left_for_the_other(tmp_path):
    with stub_engine(fault=lambda *_: 500) as first, stub_engine() as second:
        config = make_config(tmp_path, [first.url, second.url])
        table = Sampling(config, numbered_questions(2)).run()
    assert table["status"].to_list() == ["ok"] * 4
