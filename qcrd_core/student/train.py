"""One round of student training: a job that launches DeepSpeed ranks through torchrun's agent.

Reads: questions with their labels, table `scores` of the round, the engine state of the round
before.
Writes: engine states within the round, the student folder, table `metrics`, in this order; the
metrics part is the proof that the round is complete.

SIGTERM ends it after the step at hand with a checkpoint; the same round, started again, goes on
from there and ends with the very weights of an uninterrupted one (same device kind, same ranks).
"""

import os
import signal
import time
from collections.abc import Mapping
from typing import Any

import polars as pl
import torch
from torch import distributed
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from data_schemas import Metrics, Scores
from qcrd_core.config_method import TrainingSection
from qcrd_core.context import RunContext
from qcrd_core.errors import TrainingError
from qcrd_core.ids import derive_seed
from qcrd_core.processes import Emit, die_with_parent, has_accelerator
from qcrd_core.student.batches import (
    Example,
    batch_draws,
    batch_rows,
    collate,
    make_examples,
    skip_shared_tokens,
)
from qcrd_core.student.engine import (
    export_student,
    learning_rate,
    load_engine,
    save_engine,
    set_learning_rate,
    start_distributed,
    start_engine,
)
from qcrd_core.student.model import wrap
from qcrd_core.student.objective import PARTS, QcrdObjective
from qcrd_core.student.tokenizer import load_tokenizer
from qcrd_core.student.weights import make_student


def main(payload: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Train one round.

    Args:
        payload: `RunContext.payload(round=..., labels=path, tokenizer=folder)`; the labels are a
            Parquet file of question_id, question, label: one row a training question.
        emit: Receives `{"advance": 1, "note": ...}` after each step.

    Returns:
        `{"interrupted": bool, "global_step": int, "loss": float | None}`.

    Raises:
        TrainingError: If the loss is no finite number.
    """
    training = RunContext.from_payload(payload).config.training
    launch = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=training.num_processes,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        run_id=payload["run_id"],
        # See qcrd_core.processes: a CUDA driver does not survive a fork.
        start_method="spawn" if has_accelerator() else "fork",
        max_restarts=0,
    )
    result: dict[str, Any] = elastic_launch(launch, train_rank)(payload, emit)[0]
    if "error" in result:
        raise TrainingError(result["error"])
    return result


def train_rank(payload: Mapping[str, Any], emit: Emit) -> dict[str, Any]:
    """Train one round as one rank; torchrun's agent has set RANK and WORLD_SIZE.

    Args:
        payload: As in `main`.
        emit: As in `main`; rank 0 calls it.

    Returns:
        As in `main`, or `{"error": text}`: an exception of one rank would leave the others waiting
        in a collective.
    """
    die_with_parent()
    context = RunContext.from_payload(payload)
    config, training = context.config, context.config.training
    world = int(os.environ["WORLD_SIZE"])
    if not has_accelerator():
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // world))
    start_distributed()
    stop = _stop_on_sigterm()
    tokenizer = load_tokenizer(payload["tokenizer"])
    student = wrap(make_student(config.student.model, tokenizer, config.run.seed))
    examples, counts = _examples(context, payload, tokenizer, student.model)
    buckets = 1 if training.zero_stage == 3 else 3
    engine = start_engine(QcrdObjective(student, config.loss, num_buckets=buckets), training)
    engine.train()  # a loaded model comes in evaluation mode, without its dropout
    round_ = int(payload["round"])
    steps = training.steps_in_round(len(examples))
    state = _resume(engine, context, round_, steps)
    if distributed.get_rank() == 0 and state["global_step"] > round_ * steps:
        emit({"advance": state["global_step"] - round_ * steps, "note": "resumed"})
    loop = _Round(context, engine, examples, tokenizer, state, steps * training.num_rounds)
    outcome = loop.run((round_ + 1) * steps, round_, emit, stop)
    if outcome is not None:
        return outcome
    save_engine(engine, context.store, context.paths.engine(round_), loop.state)
    export_student(engine, tokenizer, context, round_)
    if distributed.get_rank() == 0:
        _write_metrics(context, round_, loop.state["rows"], counts)
        if round_ > 0:
            context.store.delete(context.paths.engine(round_ - 1))
    last = loop.state["rows"][-1][0] if loop.state["rows"] else None
    return {"interrupted": False, "global_step": loop.state["global_step"], "loss": last}


class _Round:
    """The loop over optimiser steps."""

    def __init__(
        self,
        context: RunContext,
        engine: Any,
        examples: list[Example],
        tokenizer: Any,
        state: dict[str, Any],
        num_steps: int,
    ) -> None:
        self.context, self.engine, self.examples = context, engine, examples
        self.tokenizer, self.state, self.num_steps = tokenizer, state, num_steps
        self.training: TrainingSection = context.config.training

    def run(
        self, last_step: int, round_: int, emit: Emit, stop: list[int]
    ) -> dict[str, Any] | None:
        """Train to `last_step`; a dict when it ended early, None when the round is done."""
        saved_at = time.monotonic()
        while self.state["global_step"] < last_step:
            parts, seconds = self._step()
            if not torch.isfinite(parts).all():
                return {"error": self._divergence(round_)}
            self._record(parts, seconds, emit)
            interrupted = _any_rank(bool(stop))
            due = time.monotonic() - saved_at > self.training.checkpoint_seconds
            if interrupted or _any_rank(due):
                folder = self.context.paths.engine(round_)
                save_engine(self.engine, self.context.store, folder, self.state)
                saved_at = time.monotonic()
            if interrupted:
                return {"interrupted": True, "global_step": self.state["global_step"], "loss": None}
        return None

    def _step(self) -> tuple[torch.Tensor, float]:
        start, step = time.monotonic(), self.state["global_step"]
        rank = distributed.get_rank()
        set_learning_rate(self.engine, learning_rate(step, self.num_steps, self.training))
        questions, seed = self.training.global_batch_size, self.context.config.run.seed
        rows = batch_rows(len(self.examples), questions, step, seed)
        draws = batch_draws(questions, step, seed)
        size, total = self.training.micro_batch_size, torch.zeros(len(PARTS))
        for micro in range(self.training.gradient_accumulation_steps):
            first = (micro * distributed.get_world_size() + rank) * size
            # Dropout is a function of the step, so a resumed run needs no generator state.
            torch.manual_seed(derive_seed(seed, "dropout", step, micro, rank))
            batch = collate(
                [self.examples[row] for row in rows[first : first + size]],
                self.tokenizer.pad_token_id,
                self.tokenizer.eos_token_id,
                draws[first : first + size],
            )
            loss, parts = self.engine(batch.to(self.engine.device))
            self.engine.backward(loss)
            self.engine.step()
            total += parts.float().cpu()
        self.state["global_step"] = step + 1
        return total / self.training.gradient_accumulation_steps, time.monotonic() - start

    def _record(self, parts: torch.Tensor, seconds: float, emit: Emit) -> None:
        rate = self.training.global_batch_size / seconds
        self.state["rows"].append([*parts.tolist(), rate, self.state["global_step"]])
        if distributed.get_rank() == 0:
            emit({"advance": 1, "note": f"loss {parts[0]:.3f}"})

    def _divergence(self, round_: int) -> str:
        step = self.state["global_step"] - 1
        rows = batch_rows(
            len(self.examples),
            self.training.global_batch_size,
            step,
            self.context.config.run.seed,
        )
        names = ", ".join(self.examples[row].question_id for row in rows[:3])
        good = f"round {round_ - 1}" if round_ else "the untrained student"
        return (
            f"The training loss must be finite; got NaN or infinity (round {round_}, step {step}, "
            f"questions {names}, ...). The last good checkpoint is {good}. Lower "
            "training.learning_rate or look at these questions."
        )


def _examples(
    context: RunContext, payload: Mapping[str, Any], tokenizer: Any, model: Any
) -> tuple[list[Example], dict[str, int]]:
    labels = pl.read_parquet(payload["labels"])
    scores = context.store.read_table(context.paths.scores(int(payload["round"])), Scores)
    examples, too_long = make_examples(
        labels, scores, tokenizer, context.config.student, end=model.config.is_encoder_decoder
    )
    counts = {"num_rationales_too_long": too_long}
    if context.config.loss.neg_tokens == "after_divergence":
        examples, counts["num_negatives_like_a_positive"] = skip_shared_tokens(examples)
    return examples, counts


def _resume(engine: Any, context: RunContext, round_: int, steps: int) -> dict[str, Any]:
    state = load_engine(engine, context.store, context.paths.engine(round_))
    if state is not None:
        return state
    if round_ > 0:
        before = load_engine(engine, context.store, context.paths.engine(round_ - 1))
        if before is None or before["global_step"] != round_ * steps:
            msg = (
                f"Round {round_} must start from the finished round {round_ - 1}; its engine state "
                "is absent. Run the rounds in order."
            )
            raise TrainingError(msg)
    return {"global_step": round_ * steps, "rows": []}


def _write_metrics(
    context: RunContext, round_: int, rows: list[list[float]], counts: Mapping[str, int]
) -> None:
    names = [*PARTS, "questions_per_second"]
    records = [
        ("train", round_, int(row[-1]), name, value)
        for row in rows
        for name, value in zip(names, row, strict=False)
    ]
    records += [("data", round_, 0, name, float(count)) for name, count in counts.items()]
    columns = ["stage", "round", "global_step", "name", "value"]
    frame = pl.DataFrame(records, schema=columns, orient="row")
    context.store.write_table(context.paths.metrics_part("train", round_), frame, Metrics)


def _stop_on_sigterm() -> list[int]:
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: asked.append(number))
    return asked


def _any_rank(value: bool) -> bool:
    if distributed.get_world_size() == 1:
        return value
    flag = torch.tensor([float(value)])
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    flag = flag.to(device)
    distributed.all_reduce(flag, op=distributed.ReduceOp.MAX)
    return bool(flag.item())
