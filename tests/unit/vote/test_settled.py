"""When a question is settled: by hand, by simulation, and in a run that draws in waves."""

import random
from collections import Counter
from itertools import product

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from qcrd_core.config.run import validate_config
from qcrd_core.errors import SamplingError
from qcrd_core.stages.plan import begin_run, plan_run
from qcrd_core.stages.sampling import sample_teacher
from qcrd_core.vote.rationales import read_rationales
from qcrd_core.vote.settled import chance_of_change, num_needed, waves
from tests.support.distillation import NUM_TRAIN, settings_for, taught_teacher

K, BOUND = 10, 0.1


@pytest.mark.parametrize(
    ("num_samples", "steps"),
    [
        (1, (1,)),
        (2, (2,)),
        (3, (2, 3)),
        (5, (2, 3, 4, 5)),
        (10, (3, 5, 7, 9, 10)),
        (20, (6, 10, 14, 18, 20)),
    ],
)
def test_waves_rise_to_all_samples(num_samples, steps):
    assert waves(num_samples) == steps


@pytest.mark.parametrize(
    ("first", "second", "left", "chance"),
    [
        # With p ~ Beta(3, 1), both go to the rival with chance E[(1 - p)^2] = 2! * 3! / 5! = 1/10.
        (2, 0, 2, 1 / 10),
        # One is enough for a tie: E[1 - p] = 2/5 for Beta(3, 2).
        (2, 1, 1, 2 / 5),
        # Out of reach, and a tie at the end.
        (3, 0, 2, 0.0),
        (2, 2, 0, 1.0),
        # From a tie, one more sample decides: half of it goes to the rival.
        (1, 1, 1, 1 / 2),
    ],
)
def test_chance_of_change_by_hand(first, second, left, chance):
    assert chance_of_change(first, second, left) == pytest.approx(chance)


def test_chance_of_change_is_that_of_drawn_futures():
    generator = random.Random(0)
    num_changed, num_drawn = 0, 20_000
    for _ in range(num_drawn):
        share = generator.betavariate(3 + 1, 1 + 1)
        for_leader = sum(generator.random() < share for _ in range(6))
        num_changed += 3 + for_leader <= 1 + 6 - for_leader
    # Four standard deviations of a share of 20,000 draws are at most 0.015.
    assert chance_of_change(3, 1, 6) == pytest.approx(num_changed / num_drawn, abs=0.015)


def test_chance_of_change_falls_with_the_lead():
    for second, left in product(range(4), range(1, 8)):
        chances = [chance_of_change(first, second, left) for first in range(second, 12)]
        assert chances == sorted(chances, reverse=True)


def _rows(answers):
    return pl.DataFrame(
        [
            (question_id, k, answer)
            for question_id, given in answers.items()
            for k, answer in enumerate(given)
        ],
        schema={"question_id": pl.String, "sample_idx": pl.Int32, "answer": pl.String},
        orient="row",
    )


def test_question_needs_the_first_wave_after_which_it_is_settled():
    answers = {
        "agree": ["7"] * 10,
        "short": ["7"] * 2,  # the first wave is not complete
        "split": ["7", "8"] * 5,
        "silent": [None] * 10,
        # 2 to 1 after three; 4 to 1 after five.
        "late": ["7", "8", "7", "7", "7", "8", "8", "8", "8", "8"],
        "begun": ["7", "8", "7"],
    }
    found = dict(num_needed(_rows(answers), num_samples=K, bound=BOUND).rows())
    assert found == {"agree": 3, "short": 3, "split": 10, "silent": 10, "late": 5, "begun": 5}
    # The figures behind it, for a bound of 0.1.
    assert chance_of_change(3, 0, 7) < BOUND < chance_of_change(2, 1, 7)
    assert chance_of_change(4, 1, 5) < BOUND


def test_what_is_stored_beyond_the_need_changes_nothing():
    answers = {"a": ["7"] * 3, "b": ["7", "8", "7", "7", "7"]}
    more = {"a": ["7"] * 3 + ["8"] * 7, "b": ["7", "8", "7", "7", "7"] + ["8"] * 5}
    usual = num_needed(_rows(answers), num_samples=K, bound=BOUND)
    assert_frame_equal(num_needed(_rows(more), num_samples=K, bound=BOUND), usual)


def _context(folder, engine, **teacher):
    settings = settings_for(folder, engine, teacher={"num_samples": K, **teacher})
    plan = plan_run(validate_config(settings, "test"))
    begin_run(plan)
    return plan.context


def test_run_in_waves_asks_less_resumes_and_can_be_completed(tmp_path):
    with taught_teacher() as engine:
        context = _context(tmp_path, engine, stop_when_settled=BOUND)
        done = sample_teacher(context)
        rows = read_rationales(context)
        assert done["num_sampled"] == rows.height == engine.num_asked < 0.8 * NUM_TRAIN * K
        sizes = Counter(rows.group_by("question_id").len()["len"])
        assert set(sizes) <= set(waves(K))
        assert len(sizes) > 1
        # A wave is one request per question.
        assert all(body["n"] in {3, 2, 1} for body in engine.bodies)

        assert sample_teacher(context)["num_sampled"] == 0  # nothing is left to do

        whole = _context(tmp_path, engine)
        assert whole.paths.run_id != context.paths.run_id
        sample_teacher(whole)
        assert engine.num_asked == NUM_TRAIN * K
        assert max(engine.asked.values()) == 1
        full = read_rationales(whole)
        assert_frame_equal(full.join(rows, on=["question_id", "sample_idx"], how="semi"), rows)
        # The first run is what it was, although the store now holds more.
        assert_frame_equal(read_rationales(context), rows)


def test_run_in_waves_that_was_interrupted_ends_like_an_undisturbed_one(tmp_path):
    made = ("created_at", "run_id")
    with taught_teacher() as engine:
        whole = _context(tmp_path / "whole", engine, stop_when_settled=BOUND)
        sample_teacher(whole)
        num_asked = engine.num_asked
        # The account is empty in the second wave: the first has 24 requests.
        paid = iter(range(NUM_TRAIN + 3))
        engine.fault = lambda *_: None if next(paid, None) is not None else (402, {})
        cut = _context(tmp_path / "cut", engine, stop_when_settled=BOUND)
        with pytest.raises(SamplingError, match="no money left"):
            sample_teacher(cut)
        engine.fault = None
        sample_teacher(cut)
    assert engine.num_asked < 2 * num_asked + NUM_TRAIN
    assert_frame_equal(read_rationales(cut).drop(made), read_rationales(whole).drop(made))
