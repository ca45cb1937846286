"""Several samplers on one generation: who takes what, and that no sample is stored twice."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from data_schemas import Rationales
from qcrd_core.progress import progress
from qcrd_core.store.compact import compact
from qcrd_core.teacher.shard_claims import ShardClaims
from tests.support.sampling import Sampling, make_config, numbered_questions
from tests.support.stub_engine import stub_engine
from tests.support.tables import make_rationales


@pytest.fixture(autouse=True)
def _every_look_is_fresh(monkeypatch):
    monkeypatch.setattr("qcrd_core.teacher.shard_claims._LOOK_FACTOR", 0)


class _Samplers:
    """Samplers of one plan: 5 shards of 3 questions, K = 2."""

    def __init__(self, folder, **budget):
        config = make_config(folder, ["http://127.0.0.1:9/v1"], budget=budget)
        self.sampling = Sampling(config, numbered_questions(15))
        self.store, self.plan = self.sampling.store, self.sampling.plan()

    def join(self):
        meter = self.sampling.meter()
        claims = ShardClaims(self.store, self.plan, self.plan.shards, run_id="run-1", meter=meter)
        return claims, meter

    def write(self, shard, name=None, run_id="run-1"):
        names = ("question_id", "sample_idx", "prompt_hash")
        keys = [dict(zip(names, key, strict=True)) for key in shard.keys]
        more = {"generation": self.plan.fingerprint, "run_id": run_id, "answer": "7"}
        rows = make_rationales([{**key, **more} for key in keys])
        self.store.write_table(f"{self.plan.folder}/{name or shard.part}", rows, Rationales)


@pytest.fixture
def samplers(tmp_path):
    return _Samplers(tmp_path)


def test_samplers_go_through_the_shards_in_orders_of_their_own(samplers):
    orders = {tuple(shard.part for shard in samplers.join()[0].claim(5)) for _ in range(20)}
    assert len(orders) > 1
    assert {tuple(sorted(order)) for order in orders} == {
        tuple(sorted(shard.part for shard in samplers.plan.shards))
    }


def test_shards_that_another_has_begun_are_taken_last(samplers):
    one, two = samplers.join()[0], samplers.join()[0]
    begun = one.claim(3)
    assert all(one.announce(shard) for shard in begun)
    two.refresh()
    free = two.claim(5)
    assert len(free) == 2
    assert not {shard.part for shard in free} & {shard.part for shard in begun}


def test_shards_of_a_dead_sampler_are_taken_over_a_few_at_a_time(samplers):
    dead, _ = samplers.join()
    assert all(dead.announce(shard) for shard in dead.claim(9))
    claims, _ = samplers.join()
    claims.refresh()
    (first,) = claims.claim(9)
    assert claims.claim(9) == []
    claims.release(first, len(first.keys))
    second, third = claims.claim(9)
    claims.release(second, len(second.keys))
    claims.release(third, None)  # its sampler lives: it was first
    claims.refresh()
    assert len(claims.claim(9)) == 1


def test_shard_whose_note_was_taken_back_is_free_again(samplers):
    other, _ = samplers.join()
    (shard,) = other.claim(1)
    assert other.announce(shard)
    other.withdraw(shard)
    claims, _ = samplers.join()
    claims.refresh()
    assert len(claims.claim(9)) == len(samplers.plan.shards)


def test_shard_that_another_began_since_the_last_look_is_left_to_it(samplers):
    claims, other = samplers.join()[0], samplers.join()[0]
    claims.refresh()
    (theirs,) = other.claim(1)
    assert other.announce(theirs)
    begun = [shard.part for shard in claims.claim(9) if claims.announce(shard)]
    assert len(begun) == 4
    assert theirs.part not in begun
    (left,) = claims.claim(9)  # now nothing else is left
    assert left.part == theirs.part
    assert claims.announce(left)


def test_shard_that_another_stored_since_the_last_look_is_not_begun(samplers):
    claims, _ = samplers.join()
    claims.refresh()
    (shard, *_) = claims.claim(9)
    samplers.write(shard)
    assert not claims.announce(shard)
    assert claims.num_left == 24
    assert claims.claim(9) == []


def test_look_says_what_others_stored_and_what_is_thereby_done(samplers):
    claims, _ = samplers.join()
    (mine,) = claims.claim(1)
    other = next(shard for shard in samplers.plan.shards if shard.part != mine.part)
    samplers.write(mine)
    samplers.write(other)
    assert claims.refresh() == [mine.part]
    assert claims.num_left == 18
    assert other.part not in {shard.part for shard in claims.claim(9)}


def test_part_that_another_stored_first_is_not_stored_again(samplers):
    claims, _ = samplers.join()
    (mine,) = claims.claim(1)
    samplers.write(mine)
    assert not claims.may_store(mine, mine.part)
    claims.release(mine, None)
    assert claims.refresh() == []
    assert claims.num_left == 24


def test_own_part_is_not_taken_for_that_of_another(samplers):
    claims, _ = samplers.join()
    (mine,) = claims.claim(1)
    assert claims.may_store(mine, mine.part)
    samplers.write(mine)
    assert claims.refresh() == []
    claims.release(mine, len(mine.keys))
    assert claims.num_left == 24


def test_parts_that_were_joined_meanwhile_are_left_out(samplers):
    claims, _ = samplers.join()
    for shard in samplers.plan.shards[:3]:
        samplers.write(shard)
    with progress("Join", 1, "rows") as bar:
        compact(samplers.store, samplers.plan.folder, bar)
    assert claims.refresh() == []
    assert claims.num_left == 12
    assert {shard.part for shard in claims.claim(9)} == {
        shard.part for shard in samplers.plan.shards[3:]
    }


def test_shards_cut_in_another_way_leave_only_the_rest(tmp_path):
    samplers = _Samplers(tmp_path)
    claims, _ = samplers.join()
    config = make_config(tmp_path, None, questions_per_shard=4)
    other = Sampling(config, numbered_questions(15)).plan().shards[0]  # q000 to q003
    samplers.write(other)
    assert claims.refresh() == []
    rest = sorted(key[0] for shard in claims.claim(9) for key in shard.keys)
    assert rest == sorted(2 * [f"q{number:03d}" for number in range(4, 15)])
    assert claims.num_left == 22


@pytest.mark.parametrize(("run_id", "spent"), [("run-1", 90), ("another", 0)])
def test_limit_counts_what_other_samplers_of_the_run_took(tmp_path, run_id, spent):
    samplers = _Samplers(tmp_path, max_tokens=1000)
    claims, meter = samplers.join()
    samplers.write(samplers.plan.shards[0], run_id=run_id)  # 6 samples of 10 + 5 tokens
    assert claims.refresh() == []
    assert meter.spent.total == spent


def test_two_samplers_at_once_share_the_work_and_give_the_same_table(tmp_path):
    questions = numbered_questions(90)  # 30 shards of 6 samples
    with stub_engine() as engine:
        alone = Sampling(make_config(tmp_path / "one", [engine.url]), questions).run()
    with stub_engine(delay_seconds=0.02) as engine:
        config = make_config(tmp_path / "two", [engine.url], concurrency=6)
        samplers = [Sampling(config, questions) for _ in range(2)]
        start = threading.Barrier(2)

        def run(sampling):
            start.wait()
            return sampling.run()

        with ThreadPoolExecutor(2) as threads:
            tables = list(threads.map(run, samplers))
    parts = samplers[0].store.list(samplers[0].plan().folder, suffix=".parquet")
    folder = samplers[0].store.local(samplers[0].plan().folder)
    stored = pl.concat([pl.read_parquet(folder / part) for part in parts])
    sampled = [sum(part.num_rows for part in one.results) for one in samplers]

    for table in tables:
        assert_frame_equal(table.drop("created_at"), alone.drop("created_at"))
    assert not stored.select("question_id", "sample_idx").is_duplicated().any()
    assert min(sampled) >= 30
    # What both asked was in flight at the end: two shards of 6 each.
    assert engine.num_asked - 180 <= 2 * 2 * 6
    assert not list(folder.glob("_tmp*"))


def test_sampler_lets_go_of_what_another_has_stored(tmp_path):
    questions = numbered_questions(6)
    with stub_engine(delay_seconds=0.2) as engine:
        config = make_config(tmp_path, [engine.url], concurrency=1)
        slow = Sampling(config, questions)
        with ThreadPoolExecutor(1) as thread:
            future = thread.submit(slow.run)
            while engine.num_asked < 2:
                pass
            with stub_engine() as fast_engine:
                fast = Sampling(make_config(tmp_path, [fast_engine.url]), questions)
                fast.run()
            future.result()
    counts = Counter(engine.asked)
    assert sum(counts.values()) < 12  # what it had not sent yet it never sent
    assert slow.sampled.num_left == 0
    assert slow.sampled.num_twice <= engine.num_asked
