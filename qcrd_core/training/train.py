"""One round of student training: a job that launches DeepSpeed ranks through torchrun's agent.

Reads: questions with their labels, table `scores` of the round, the engine state of the previous
round.
Writes, in this order: engine states within the round, the student folder, table `metrics`. If the
metrics part exists, the round is complete.

On SIGTERM, the job finishes the present step and saves a checkpoint. Started again, the round
resumes there and ends with exactly the weights of an uninterrupted round, on the same kind of
device and the same number of ranks. With another number of ranks it resumes too; the weights then
differ by rounding and by the draws of dropout.
"""

import signal
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import torch
from torch import distributed
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, record
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from data_schemas import Scores
from qcrd_core import errors
from qcrd_core.config.method import TrainingSection
from qcrd_core.errors import QcrdError, TrainingError
from qcrd_core.run.context import RunContext
from qcrd_core.runtime.hosts import RENDEZVOUS_PORT, choose_interface
from qcrd_core.runtime.processes import (
    TEMPORARY,
    Emit,
    can_fork,
    die_with_parent,
    explain_exhausted,
    has_accelerator,
)
from qcrd_core.student.model import wrap
from qcrd_core.student.tokenizer import load_tokenizer
from qcrd_core.student.weights import make_student
from qcrd_core.training.batches import Example, make_examples, skip_shared_tokens
from qcrd_core.training.checkpoint import Checkpoint, find_checkpoint, save_checkpoint
from qcrd_core.training.engine import export_student, start_distributed, start_engine
from qcrd_core.training.jobs import JoinRound, Trained, TrainRound
from qcrd_core.training.loop import Diverged, RoundLoop, write_metrics
from qcrd_core.training.objective import QcrdObjective


def train_round(job: TrainRound, emit: Emit) -> Trained:
    """Train one round on the first of `training.hosts`, or on a single host.

    Args:
        job: The run, the round and its labels.
        emit: Receives `{"advance": 1, "note": ...}` after each step.

    Returns:
        The result of training.

    Raises:
        TrainingError: If the loss is not finite, or a host did not join or was lost.
    """
    return _launch(job, emit, place=0)


def join_round(job: JoinRound, emit: Emit) -> Trained:
    """Train, on another host, the round that the first host has begun.

    Args:
        job: This host's settings and place.
        emit: Not called.

    Returns:
        As `train_round`.

    Raises:
        TrainingError: As `train_round`.
    """
    return _launch(job, emit, place=job.place)


def _launch(job: TrainRound | JoinRound, emit: Emit, *, place: int) -> Trained:
    training = job.config.training
    hosts, backend, endpoint = training.hosts, "c10d", "localhost:0"
    if len(hosts) > 1:
        choose_interface(hosts[0] if place else hosts[1])
        # Static: ranks follow the order of the hosts, so that rank 0 is on the host of the flow.
        backend, endpoint = "static", f"{hosts[0]}:{RENDEZVOUS_PORT}"
    with TemporaryDirectory(prefix=TEMPORARY) as folder:
        launch = LaunchConfig(
            min_nodes=max(1, len(hosts)),
            max_nodes=max(1, len(hosts)),
            nproc_per_node=training.num_processes,
            logs_specs=DefaultLogsSpecs(folder),  # ranks write their errors there
            rdzv_backend=backend,
            rdzv_endpoint=endpoint,
            rdzv_configs={"rank": place, "timeout": int(training.host_timeout_seconds)},
            run_id="qcrd",
            start_method="fork" if can_fork() else "spawn",
            max_restarts=0,
        )
        try:
            results: dict[int, Trained | Diverged] = elastic_launch(launch, train_rank)(job, emit)
        except ChildFailedError as error:
            raise _explained(error, training) from error
        except distributed.DistError as error:
            if len(hosts) < 2:
                raise
            reason = str(error).splitlines()[0].rstrip(".")
            msg = (
                f"Not all of {', '.join(hosts)} joined training at {endpoint} within "
                f"{training.host_timeout_seconds:g} s: {reason}. Finished rounds are kept. Run "
                "`qcrd join` on the other hosts with the same settings, or set training.hosts=[]."
            )
            raise TrainingError(msg) from error
    result = next(iter(results.values()))
    if isinstance(result, Diverged):
        raise TrainingError(result.reason)
    return result


def _explained(error: ChildFailedError, training: TrainingSection) -> Exception:
    """Turn the error of the first rank that failed here into ours; keep one that is ours."""
    _, failure = error.get_first_failure()
    message = failure.message if isinstance(failure.message, str) else failure.message["message"]
    name, _, text = message.partition(": ")
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, QcrdError):
        return kind(text)
    sentence = explain_exhausted("Training", message)
    if sentence:
        return TrainingError(sentence)
    if len(training.hosts) < 2:
        return error
    reason = message.splitlines()[0] if message else f"exit code {failure.exitcode}"
    return TrainingError(
        f"Training on {', '.join(training.hosts)} stopped, because a rank on this host ended: "
        f"{reason}. The cause may be another host that sent nothing for "
        f"{training.host_timeout_seconds:g} s. The last checkpoint is kept; run the same commands "
        "again to resume, or continue on this host alone with training.hosts=[]."
    )


@record
def train_rank(here: TrainRound | JoinRound, emit: Emit) -> Trained | Diverged:
    """Train one round as one rank; torchrun's agent has set RANK and WORLD_SIZE.

    Args:
        here: The job of this rank's host.
        emit: As in `train_round`; rank 0 calls it.

    Returns:
        As `train_round`; or Diverged, which all ranks return together, because an exception of one
        rank would leave the others waiting in a collective.
    """
    die_with_parent()
    if not has_accelerator():
        # torch's default follows OMP_NUM_THREADS and the cores of the process; divide it so that
        # the ranks of this host do not compete.
        torch.set_num_threads(max(1, torch.get_num_threads() // here.config.training.num_processes))
    start_distributed(here.config.training)
    stop = _stop_on_sigterm()
    job, labels = _from_first_rank(here)
    context, round_ = job.context, job.round
    config, training = context.config, context.config.training
    tokenizer = load_tokenizer(context.store.fetch_folder(context.paths.tokenizer))
    settings = config.student
    student = wrap(make_student(settings.model, tokenizer, config.run.seed, settings.lora))
    examples, counts = _examples(context, round_, labels, tokenizer, student.model)
    if training.gradient_checkpointing:
        student.model.gradient_checkpointing_enable()
    buckets = 1 if training.zero_stage == 3 else 4
    objective = QcrdObjective(student, config.loss, max_buckets=buckets)
    steps = training.steps_in_round(len(examples))
    checkpoint = _last_checkpoint(context, round_, steps)
    if checkpoint is not None:
        checkpoint.load_weights(objective)
    engine = start_engine(objective, training)
    engine.train()  # a loaded model is in evaluation mode, without dropout
    state: dict[str, Any] = {"global_step": round_ * steps, "rows": []}
    if checkpoint is not None:
        checkpoint.load_optimizer(engine)
        # A checkpoint of the previous round has weights and moments, but no steps of this round.
        if checkpoint.state["global_step"] > round_ * steps:
            state = checkpoint.state
    if distributed.get_rank() == 0 and state["global_step"] > round_ * steps:
        emit({"advance": state["global_step"] - round_ * steps, "note": "resumed"})
    loop = RoundLoop(context, engine, examples, tokenizer, state, steps * training.num_rounds)
    outcome = loop.run((round_ + 1) * steps, round_, emit, stop)
    if outcome is not None:
        return outcome
    save_checkpoint(engine, context.store, context.paths.engine(round_), loop.state)
    export_student(engine, tokenizer, context, round_)
    if distributed.get_rank() == 0:
        write_metrics(context, round_, loop.state["rows"], counts)
        if round_ > 0:
            context.store.delete(context.paths.engine(round_ - 1))
    last = loop.state["rows"][-1][0] if loop.state["rows"] else None
    return Trained(
        interrupted=False,
        global_step=loop.state["global_step"],
        loss=last,
        is_last_round=round_ + 1 == training.num_rounds,
    )


def _from_first_rank(here: TrainRound | JoinRound) -> tuple[TrainRound, pl.DataFrame]:
    """The job of rank 0, with this host's paths, and the labels."""
    shared: list[Any] = [None]
    if isinstance(here, TrainRound) and distributed.get_rank() == 0:
        shared = [(here, pl.read_parquet(here.labels))]
    distributed.broadcast_object_list(shared)
    job, labels = shared[0]
    config = job.config
    if config.training.num_ranks != distributed.get_world_size():
        msg = (
            "training.num_processes must be the same on all hosts; the first host expects "
            f"{config.training.num_processes} ranks on each of {len(config.training.hosts)} hosts, "
            f"but got {distributed.get_world_size()} in total. Start all hosts with the same "
            "settings."
        )
        raise TrainingError(msg)
    places = {"store": here.config.run.store, "scratch": here.config.run.scratch}
    config = config.model_copy(update={"run": config.run.model_copy(update=places)})
    return replace(job, config=config), labels


def _examples(
    context: RunContext, round_: int, labels: pl.DataFrame, tokenizer: Any, model: Any
) -> tuple[list[Example], dict[str, int]]:
    scores = context.store.read_table(context.paths.scores(round_), Scores)
    neg_tokens = context.config.loss.neg_tokens
    examples, too_long = make_examples(
        labels,
        scores,
        tokenizer,
        context.config.student,
        end=model.config.is_encoder_decoder,
        find_false_steps=neg_tokens == "after_false_step",
    )
    counts = {"num_rationales_too_long": too_long}
    if neg_tokens != "all":
        starts = [r.first for example in examples for r in example.rationales if r.first]
        counts["num_false_steps_found"] = len(starts)
        examples, counts["num_negatives_like_a_positive"] = skip_shared_tokens(examples)
    return examples, counts


def _last_checkpoint(context: RunContext, round_: int, steps: int) -> Checkpoint | None:
    """This round's checkpoint, or that of the finished previous round; None at the very start."""
    here = find_checkpoint(context.store, context.paths.engine(round_))
    if here is not None or round_ == 0:
        return here
    before = find_checkpoint(context.store, context.paths.engine(round_ - 1))
    if before is None or before.state["global_step"] != round_ * steps:
        msg = (
            f"Round {round_} must start from the finished round {round_ - 1}; got no engine state "
            "of that round. Run the rounds in order."
        )
        raise TrainingError(msg)
    return before


def _stop_on_sigterm() -> list[int]:
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: asked.append(number))
    return asked
