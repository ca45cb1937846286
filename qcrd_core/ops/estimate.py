"""What many questions on many GPUs would take, from what past runs in the store measured.

    found = forecast(config, num_questions=1_000_000, num_gpus=16)
    print(describe_forecast(found))

Nothing is assumed: tokens, speed and size are those of the latest run in the store that sampled
this teacher with this length limit, and without one there is an error that says what to run. The
time of sampling is that of full engines: K x questions x tokens a sample / (speed of a GPU x GPUs).

Limits: a server of `teacher.endpoints` counts as one GPU, since the protocol does not say how many
it has. Training is as on the machine that measured it, whatever `num_gpus`: its steps take the same
time, and their number follows the questions as the configuration says. In each round all rationales
are scored and a student writes a negative for each question: that grows.
"""

from dataclasses import dataclass

from qcrd_core.config.models import ImportedModel
from qcrd_core.config.run import RunConfig, read_stored_config
from qcrd_core.errors import ConfigError, DataError, QcrdError
from qcrd_core.ops.measurements import Measured, read_measured
from qcrd_core.run.paths import RunPaths
from qcrd_core.store.store import Store
from qcrd_core.teacher.budget import Tokens

_HOUR = 3600.0


@dataclass(frozen=True)
class Forecast:
    """What a run of so many questions would take."""

    measured: Measured
    num_samples: int
    num_gpus: int
    tokens: Tokens
    gpu_hours: float
    """Sampling, all GPUs together."""
    sampling_seconds: float
    """Wall time."""
    num_bytes: float
    """Rationales in the store."""
    num_steps: int
    """Optimiser steps of all rounds."""
    training_seconds: float | None
    """Wall time of these steps; None where the measured run has not trained."""
    other_seconds: float | None
    """Wall time of all the rest: the teacher's start, votes, scores, negatives, answers."""
    run_bytes: float | None
    """Everything else in the store: scores, negatives, votes, the student."""
    cost: float
    """At the prices of the budget and of a GPU-hour."""


def forecast(
    config: RunConfig, *, num_questions: int, num_gpus: int, gpu_hour_price: float = 0.0
) -> Forecast:
    """Work out what a run would take. Reads the store only.

    Args:
        config: The run's configuration.
        num_questions: Training questions, at least 1.
        num_gpus: GPUs that sample, at least 1.
        gpu_hour_price: Price of a GPU-hour of sampling; 0 takes that of the section `budget`.

    Returns:
        The forecast.

    Raises:
        ConfigError: If a number is out of range, or the rationales are imported.
        DataError: If no run of the store measured this teacher.
    """
    if num_questions < 1 or num_gpus < 1 or gpu_hour_price < 0:
        msg = (
            "qcrd plan must be given at least one question and one GPU, and no negative price; got "
            f"{num_questions}, {num_gpus} and {gpu_hour_price:g}."
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
        a_round, once = trained.round_seconds, trained.once_seconds
        other_seconds = a_round.at(num_questions) * num_rounds + once.at(num_questions)
        other_seconds += measured.start_seconds
        run_bytes = trained.round_bytes.at(num_questions) * num_rounds
        run_bytes += trained.once_bytes.at(num_questions)
    return Forecast(
        measured=measured,
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


def measure_store(config: RunConfig) -> Measured:
    """Find what the latest run with this teacher measured.

    Args:
        config: Whose teacher and store.

    Returns:
        Its figures.

    Raises:
        ConfigError: If the rationales are imported.
        DataError: If there is no such run.
    """
    if isinstance(config.teacher.model, ImportedModel):
        msg = "qcrd plan must be given a teacher that is sampled; teacher.model is imported."
        raise ConfigError(msg)
    store = Store(config.run.store, config.run.scratch)
    runs = [RunPaths(run_id) for run_id in store.list("runs")]
    found = [each for each in runs if store.exists(each.metrics_part("sampling", -1))]
    latest = sorted(found, key=lambda each: _began(store, each), reverse=True)
    for paths in latest:
        past = _config(store, paths)
        if past is None or _asked(past) != _asked(config):
            continue
        measured = read_measured(store, paths, past)
        if measured is not None:
            return measured
    msg = (
        f"qcrd plan must have a run to measure by; {store} has none that sampled this teacher with "
        f"teacher.max_new_tokens = {config.teacher.max_new_tokens} (of {len(runs)} runs). Run a "
        "few questions first: `qcrd run --config ... data.max_train=200`."
    )
    raise DataError(msg)


def describe_forecast(found: Forecast) -> str:
    """Say a forecast in lines of `name  value`."""
    measured, trained = found.measured, found.measured.trained
    rows = {
        "measured by": f"run {measured.run_id}: {measured.num_samples:,} samples, "
        f"{measured.tokens_per_second:,.4g} tokens a second and GPU",
        "samples": f"{found.num_samples:,}",
        "tokens": f"{found.tokens.prompt:,} of prompts, {found.tokens.sampled:,} sampled",
        "GPU-hours": f"{found.gpu_hours:,.3g} of sampling",
        "sampling": f"{_time(found.sampling_seconds)} on {found.num_gpus} GPUs, all full",
        "training": "not measured by that run",
    }
    storage = f"{_size(found.num_bytes)} of rationales"
    if trained is not None:
        seconds = (found.sampling_seconds, found.training_seconds, found.other_seconds)
        rows["training"] = (
            f"{_time(found.training_seconds)} for {found.num_steps:,} steps of "
            f"{trained.seconds_per_step:.3g} s, on the machine that measured them"
        )
        rows["the rest"] = (
            f"{_time(found.other_seconds)}: starts, votes, scores, negatives, answers; likewise"
        )
        rows["in all"] = f"{_time(sum(value or 0.0 for value in seconds))}, one after the other"
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
    return teacher.model, teacher.max_new_tokens, teacher.api


def _config(store: Store, paths: RunPaths) -> RunConfig | None:
    try:
        text = store.read_bytes(paths.config)
        return read_stored_config(text, paths.config)
    except QcrdError:  # of another release; it says nothing of this one's speed
        return None


def _began(store: Store, paths: RunPaths) -> str:
    return str(store.read_json(paths.environment)["started_at"])
