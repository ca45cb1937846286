"""The loop over the optimiser steps of one round, on each rank."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl
import torch
from torch import distributed

from data_schemas import Metrics
from qcrd_core.config.method import TrainingSection
from qcrd_core.ids import derive_seed
from qcrd_core.run.context import RunContext
from qcrd_core.runtime.processes import Emit
from qcrd_core.training.batches import Example, batch_draws, batch_rows, collate
from qcrd_core.training.checkpoint import save_checkpoint
from qcrd_core.training.engine import learning_rate, set_learning_rate
from qcrd_core.training.jobs import Trained
from qcrd_core.training.objective import PARTS


@dataclass(frozen=True)
class Diverged:
    """The loss is not finite any more; all ranks return this together."""

    reason: str
    """The message for the user."""


class RoundLoop:
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
        """Prepare the loop.

        Args:
            context: The run.
            engine: From `start_engine`, with the weights and moments of `state`.
            examples: All training questions.
            tokenizer: Used for its padding and end tokens.
            state: `global_step`, and `rows`: the metrics of the round's steps so far.
            num_steps: Steps of all rounds, for the learning rate.
        """
        self.context, self.engine, self.examples = context, engine, examples
        self.tokenizer, self.state, self.num_steps = tokenizer, state, num_steps
        self.training: TrainingSection = context.config.training

    def run(
        self, last_step: int, round_: int, emit: Emit, stop: list[int]
    ) -> Trained | Diverged | None:
        """Train to `last_step`.

        Args:
            last_step: Global step at which the round ends.
            round_: The round.
            emit: Receives an event after each step of rank 0.
            stop: Becomes non-empty when this rank receives SIGTERM.

        Returns:
            None if the round is finished; otherwise the job's result.
        """
        saved_at = time.monotonic()
        while self.state["global_step"] < last_step:
            parts, seconds = self._step()
            due = time.monotonic() - saved_at > self.training.checkpoint_seconds
            # One exchange per step, so that all ranks decide the same. If only one rank stopped,
            # the others would wait for it in the next collective.
            shared = _mean_over_ranks(torch.cat([parts, torch.tensor([bool(stop), due])]))
            parts, interrupted = shared[: len(PARTS)], bool(shared[-2] > 0)
            if not torch.isfinite(parts).all():
                return Diverged(self._divergence(round_))
            self._record(parts, seconds, emit)
            if interrupted or shared[-1] > 0:
                folder = self.context.paths.engine(round_)
                save_checkpoint(self.engine, self.context.store, folder, self.state)
                saved_at = time.monotonic()
            if interrupted:
                return Trained(interrupted=True, global_step=self.state["global_step"])
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
            # Dropout depends only on the step, so a resumed run needs no generator state.
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
            f"The training loss became NaN or infinite at step {step} of round {round_} (questions "
            f"{names}, ...). The last good checkpoint is {good}. Lower training.learning_rate, or "
            "check these questions."
        )


def write_metrics(
    context: RunContext, round_: int, rows: list[list[float]], counts: Mapping[str, int]
) -> None:
    """Write the metrics of a round; if they exist, the round is complete.

    Args:
        context: The run.
        round_: The round.
        rows: Per step: `PARTS`, questions per second, the global step after it.
        counts: Counts of dropped data.
    """
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


def _mean_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """Mean of each value, the same on all ranks."""
    world = distributed.get_world_size()
    if world == 1:
        return values
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    values = values.to(device)
    distributed.all_reduce(values)
    return (values / world).cpu()
