"""Estimates of a run, from measurements of a run with a stub engine."""

import pytest

from data_schemas import Metrics
from qcrd_core.config.run import validate_config
from qcrd_core.errors import ConfigError, DataError
from qcrd_core.ops.estimate import describe_estimate, estimate
from qcrd_core.run.context import RunContext
from qcrd_core.stages.plan import begin_run, plan_run
from qcrd_core.stages.sampling import sample_teacher
from tests.support.distillation import NUM_TRAIN, settings_for
from tests.support.stub_engine import stub_engine

_PRICES = {"prompt_price": 1.0, "sampled_price": 10.0}


@pytest.fixture
def sampled(tmp_path):
    """A run whose teacher has been sampled, and whose settings; nothing is trained."""
    with stub_engine() as engine:
        config = validate_config(settings_for(tmp_path, engine, budget=_PRICES), "test")
        plan = plan_run(config)
        begin_run(plan)
        sample_teacher(plan.context)
        return plan.context


def _measured(context: RunContext, part: str) -> dict[str, float]:
    frame = context.store.read_table(context.paths.metrics_part(part, -1), Metrics)
    return dict(frame.select("name", "value").iter_rows())


def test_sampling_notes_what_each_server_did(sampled):
    (url,) = (endpoint.url for endpoint in sampled.config.teacher.endpoints)
    found = _measured(sampled, "servers")
    numbers = _measured(sampled, "sampling")
    # The stub counts 7 tokens a prompt and 2 a completion.
    assert numbers["num_samples"] == 5 * NUM_TRAIN
    assert numbers["num_prompt_tokens"] == 7 * 5 * NUM_TRAIN
    assert found[f"{url} tokens_per_second"] == pytest.approx(
        2 * 5 * NUM_TRAIN / numbers["seconds"]
    )


def test_estimate_scales_what_was_measured(sampled):
    found = estimate(sampled.config, num_questions=1_000_000, num_gpus=4, gpu_hour_price=3.0)
    rate = 2 * 5 * NUM_TRAIN / _measured(sampled, "sampling")["seconds"]
    assert found.num_samples == 5_000_000
    assert (found.tokens.prompt, found.tokens.sampled) == (35_000_000, 10_000_000)
    assert found.gpu_hours == pytest.approx(10_000_000 / rate / 3600)
    assert found.sampling_seconds == pytest.approx(found.gpu_hours * 3600 / 4)
    assert found.cost == pytest.approx(35.0 + 100.0 + 3.0 * found.gpu_hours)
    assert found.training_seconds is None
    assert "training        unknown, because that run is not complete" in describe_estimate(found)


def _train(context: RunContext) -> None:
    """Write what three rounds of four steps would have measured."""
    timings = {"train": {"seconds": 11.0}, "answer_validation": {"seconds": 1.0}}
    timings["score_rationales"] = {"seconds": 6.0}
    for round_ in range(3):
        # Batches of 4 questions: 2 s a step.
        context.write_metrics("train", round_, {"questions_per_second": 2.0})
        if round_:
            timings["sample_negatives"] = {"seconds": 5.0, "per_second": 8.0}
        for stage, numbers in timings.items():
            _time(context, stage, round_, numbers)
    _time(context, "answer_test", 2, {"seconds": 2.0})
    for stage, seconds in (("vote", 2.4), ("make_tokenizers", 2.4), ("check_student", 1.0)):
        _time(context, stage, -1, {"seconds": seconds})
    context.store.write_bytes(f"{context.paths.root}/negatives/round=001/large", bytes(2400))
    context.store.write_json(context.paths.result, {})


def _time(context: RunContext, stage: str, round_: int, numbers: dict[str, float]) -> None:
    named = {f"{stage}_{name}": value for name, value in numbers.items()}
    context.write_metrics("timing", round_, named, part=f"timing-{stage}")


def test_estimate_of_a_trained_run_tells_what_stays_from_what_grows(sampled):
    _train(sampled)
    found = estimate(sampled.config, num_questions=10 * NUM_TRAIN, num_gpus=1)
    assert found.training_seconds == pytest.approx(3 * 4 * 2.0)
    # A round's start and export 11 - 4 x 2, validation 1. Two rounds have negatives: 24 / 8 = 3 s
    # of 5 are work. Scores noted no pace: all of it is taken for work. Test 2, check 1.
    fixed = 3 * (3.0 + 1.0) + 2 * 2.0 + 2.0 + 1.0
    growing = 2 * 3.0 + 3 * 6.0 + 2.4 + 2.4
    start = found.measurements.start_seconds
    assert found.other_seconds == pytest.approx(fixed + 10 * growing + start)
    assert 0 <= start < 5
    more = estimate(sampled.config, num_questions=20 * NUM_TRAIN, num_gpus=1)
    questions = sampled.store.part_files(sampled.paths.questions)[0].num_bytes
    assert more.run_bytes - found.run_bytes == pytest.approx(10 * (2400 + questions))
    assert "total time" in describe_estimate(found)


def test_estimate_without_a_run_of_this_teacher_says_what_to_run(sampled):
    teacher = sampled.config.teacher.model_copy(update={"max_new_tokens": 7})
    config = sampled.config.model_copy(update={"teacher": teacher})
    with pytest.raises(
        DataError, match=r"of the 1 runs in .*max_new_tokens=7. Run a few questions"
    ):
        estimate(config, num_questions=10, num_gpus=1)


@pytest.mark.parametrize(("questions", "gpus"), [(0, 1), (1, 0)])
def test_estimate_of_nothing_is_refused(sampled, questions, gpus):
    with pytest.raises(ConfigError, match="--questions and --gpus must be between 1"):
        estimate(sampled.config, num_questions=questions, num_gpus=gpus)
