"""Estimate time, tokens and cost of a run, from measurements of earlier runs in the store.

    found = estimate(config, num_questions=1_000_000, num_gpus=16)
    print(describe_estimate(found))

Nothing is assumed. Tokens, speed and size come from the latest run in the store that sampled this
teacher with the same length limit. If there is none, an error says what to run first. Sampling time
assumes that all GPUs are busy: K x questions x tokens per sample / (speed of a GPU x GPUs).

Limits: a server of `teacher.endpoints` counts as one GPU, because the protocol does not say how
many GPUs it has. A training step takes as long as on the machine of the earlier run, whatever
`num_gpus` is; the number of steps follows from the configuration. Scoring all rationales and
writing one negative per question in each round grows with the number of questions.
"""

from dataclasses import dataclass

from qcrd_core.config.models import ImportedModel
from qcrd_core.config.run import RunConfig
from qcrd_core.errors import ConfigError, DataError, QcrdError
from qcrd_core.ops.measurements import Measurements, read_measurements
from qcrd_core.run.paths import RunPaths
from qcrd_core.run.records import read_environment, read_run_config
from qcrd_core.store.store import Store
from qcrd_core.teacher.budget import Tokens

_HOUR = 3600.0
_MOST = 10**12


@dataclass(frozen=True)
class Estimate:
    """Time, tokens, storage and cost of a run with a given number of questions."""

    measurements: Measurements
    num_samples: int
    num_gpus: int
    tokens: Tokens
    gpu_hours: float
    """Sampling, summed over all GPUs."""
    sampling_seconds: float
    """Wall time of sampling."""
    num_bytes: float
    """Size of the rationales in the store."""
    num_steps: int
    """Optimiser steps of all rounds."""
    training_seconds: float | None
    """Wall time of these steps; None if the earlier run has not finished training."""
    other_seconds: float | None
    """Wall time of the rest: the teacher's start, vote, scores, negatives, evaluation."""
    run_bytes: float | None
    """Size of everything else in the store: scores, negatives, votes, the student."""
    cost: float
    """Cost at the prices in the section `budget` and the price of a GPU-hour."""


def estimate(
    config: RunConfig, *, num_questions: int, num_gpus: int, gpu_hour_price: float = 0.0
) -> Estimate:
    """Estimate what a run would take. Only reads the store.

    Args:
        config: The run's configuration.
        num_questions: Number of training questions, at least 1.
        num_gpus: Number of GPUs that sample, at least 1.
        gpu_hour_price: Price of a GPU-hour of sampling; 0 uses the price in the section `budget`.

    Returns:
        The estimate.

    Raises:
        ConfigError: If a number is out of range, the rationales are imported, or there are several
            teachers.
        DataError: If no run in the store has sampled this teacher.
    """
    counts = (num_questions, num_gpus)
    if not (all(1 <= count <= _MOST for count in counts) and 0 <= gpu_hour_price <= _MOST):
        msg = (
            f"--questions and --gpus must be between 1 and {_MOST:,} and --gpu-hour-price between "
            f"0 and that; got {num_questions:,}, {num_gpus:,} and {gpu_hour_price:g}."
        )
        raise ConfigError(msg)
    measured = measure_store(config)
    num_samples = num_questions * config.teacher.num_samples
    share = num_samples / measured.num_samples
    tokens = Tokens(round(measured.tokens.prompt * share), round(measured.tokens.sampled * share))
    budget = config.budget.model_copy(
        update={
            "gpu_tokens_per_second": measured.tokens_per_second,
            "gpu_hour_price": gpu_hour_price or config.budget.gpu_hour_price,
        }
    )
    gpu_hours = tokens.sampled / measured.tokens_per_second / _HOUR
    num_rounds, trained = config.training.num_rounds, measured.trained
    num_steps = num_rounds * config.training.steps_in_round(num_questions)
    training_seconds = other_seconds = run_bytes = None
    if trained is not None:
        training_seconds = trained.seconds_per_step * num_steps
        per_round, once = trained.round_seconds, trained.once_seconds
        other_seconds = per_round.at(num_questions) * num_rounds + once.at(num_questions)
        other_seconds += measured.start_seconds
        run_bytes = trained.round_bytes.at(num_questions) * num_rounds
        run_bytes += trained.once_bytes.at(num_questions)
    return Estimate(
        measurements=measured,
        num_samples=num_samples,
        num_gpus=num_gpus,
        tokens=tokens,
        gpu_hours=gpu_hours,
        sampling_seconds=gpu_hours * _HOUR / num_gpus,
        num_bytes=measured.bytes_per_sample * num_samples,
        num_steps=num_steps,
        training_seconds=training_seconds,
        other_seconds=other_seconds,
        run_bytes=run_bytes,
        cost=budget.cost(tokens.prompt, tokens.sampled),
    )


def measure_store(config: RunConfig) -> Measurements:
    """Read the measurements of the latest run with this teacher.

    Args:
        config: Names the teacher and the store.

    Returns:
        The run's measurements.

    Raises:
        ConfigError: If the rationales are imported, or there are several teachers.
        DataError: If there is no such run.
    """
    if config.teacher.others:
        msg = (
            "`qcrd plan` estimates one teacher, because runs measure the speed of all together; "
            f"teacher.others has {len(config.teacher.others)}. Set teacher.others=[], and plan "
            "each of them as teacher.model."
        )
        raise ConfigError(msg)
    if isinstance(config.teacher.model, ImportedModel):
        msg = (
            "teacher.model must be a teacher to sample; got imported rationales. `qcrd plan` "
            "estimates sampling."
        )
        raise ConfigError(msg)
    store = Store(config.run.store, config.run.scratch)
    runs = [RunPaths(run_id) for run_id in store.list("runs")]
    found = [each for each in runs if store.exists(each.metrics_part("sampling", -1))]
    latest = sorted(found, key=lambda each: _began(store, each), reverse=True)
    for paths in latest:
        past = _config(store, paths)
        if past is None or _asked(past) != _asked(config):
            continue
        measured = read_measurements(store, paths, past)
        if measured is not None:
            return measured
    msg = (
        f"There is nothing to estimate from: none of the {len(runs)} runs in {store} sampled this "
        f"teacher with teacher.max_new_tokens={config.teacher.max_new_tokens}. Run a few questions "
        "first: `qcrd run --config ... data.max_train=200`."
    )
    raise DataError(msg)


def describe_estimate(found: Estimate) -> str:
    """Format an estimate as lines of `name  value`."""
    measured, trained = found.measurements, found.measurements.trained
    rows = {
        "measured in": f"run {measured.run_id}: {measured.num_samples:,} samples, "
        f"{measured.tokens_per_second:,.4g} tokens per second and GPU",
        "samples": f"{found.num_samples:,}",
        "tokens": f"{found.tokens.prompt:,} in prompts, {found.tokens.sampled:,} sampled",
        "GPU-hours": f"{found.gpu_hours:,.3g} for sampling",
        "sampling": f"{_time(found.sampling_seconds)}, with all GPUs ({found.num_gpus}) busy",
        "training": "unknown, because that run is not complete",
    }
    storage = f"{_size(found.num_bytes)} of rationales"
    if trained is not None:
        seconds = (found.sampling_seconds, found.training_seconds, found.other_seconds)
        rows["training"] = (
            f"{_time(found.training_seconds)} for {found.num_steps:,} steps of "
            f"{trained.seconds_per_step:.3g} s, on the machine of that run"
        )
        rows["other stages"] = (
            f"{_time(found.other_seconds)} for starts, vote, scores, negatives and evaluation"
        )
        rows["total time"] = f"{_time(sum(value or 0.0 for value in seconds))}"
        storage += f", {_size(found.run_bytes)} of scores, negatives, votes and the student"
    rows["storage"] = storage
    rows["cost"] = f"{found.cost:,.4g}" if found.cost else "no price is given"
    return "\n".join(f"  {name:<16}{value}" for name, value in rows.items())


def _time(seconds: float | None) -> str:
    seconds = seconds or 0.0
    return f"{seconds / _HOUR:,.3g} h" if seconds >= _HOUR else f"{seconds:,.3g} s"


def _size(num_bytes: float | None) -> str:
    num_bytes = num_bytes or 0.0
    return f"{num_bytes / 1e9:,.3g} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.3g} MB"


def _asked(config: RunConfig) -> tuple[object, ...]:
    teacher = config.teacher
    return teacher.model, teacher.max_new_tokens, teacher.api, teacher.others


def _config(store: Store, paths: RunPaths) -> RunConfig | None:
    try:
        return read_run_config(store, paths.run_id)
    except QcrdError:  # a run of another release, whose speed may differ
        return None


def _began(store: Store, paths: RunPaths) -> str:
    environment = read_environment(store, paths.run_id)
    return (environment and environment.started_at) or ""
