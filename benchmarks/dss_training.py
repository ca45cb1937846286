"""What `dss` costs in our loop against the original recipe in a plain Trainer, same run.

    .venv/bin/python -m benchmarks.dss_training [--steps 40] [--repeats 5] [--json FILE]

Both train the quickstart's student on the shipped samples: the same questions in the same batches
of 64, the same weights at first, AdamW with clipping, warm-up and linear decay, in float32, without
dropout. Two ways, in turn, so that a disturbance hits both, each in its own process:

- qcrd: `qcrd_core.training.train`, the job of a round, under DeepSpeed. One reading of all prompts,
  rationales in length buckets, only real tokens reach the vocabulary.
- trainer: `Seq2SeqTrainer` as arXiv 2305.02301's authors published it: each question collated twice
  (label under the predict prefix, rationale under the explain prefix), both padded to the longest
  of the batch, two passes of the model, 0.5 x the one loss + 0.5 x the other, nothing logged or
  saved on the way.

The time runs from the end of step WARM_UP to the end of the last. The median of the repeats counts.
CPU seconds of the job's processes are given beside it: on a busy machine they are the steadier
figure, with one thread (`taskset -c 0`), since threads that wait for each other count as busy.
Before, the loss of the first step must be the same. The recipe takes the mean over the tokens of
the batch, ours over each text's tokens and then over texts (method: docs/papers.md), so both means
are computed from the recipe's logits: one must be what it trains on, the other what we train on.
Target: 1.2 x the samples per second of trainer.
"""

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import torch
from torch.nn import functional
from transformers import (
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
)

from benchmarks.machine import describe_machine, show_machine
from benchmarks.word_problems import labels_with_rationale, prepare_run
from data_schemas import Metrics, Scores
from qcrd_core.run.context import RunContext
from qcrd_core.runtime.processes import Emit, has_accelerator, run_job
from qcrd_core.student.tokenizer import load_tokenizer
from qcrd_core.student.weights import make_student
from qcrd_core.training.batches import Example, batch_rows, make_examples
from qcrd_core.training.jobs import TrainRound, train_round

TARGET = 1.2

TOLERANCE = 1e-5
"""Largest relative difference of the first step's losses."""

WARM_UP = 5
"""Steps before the clock starts."""

ALPHA = 0.5

_IGNORED = -100


def main() -> int:
    """Prepare, train in turn, check the first loss, print the table.

    Returns:
        Exit code: 1 if the first losses differ or the ratio is below --require.
    """
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        context = prepare_run(
            Path(folder),
            training__num_rounds=arguments.repeats,
            training__steps_per_round=arguments.steps,
            training__checkpoint_seconds=3600,
        )
        labels = labels_with_rationale(context)
        path = Path(folder, "labels.parquet")
        labels.write_parquet(path)
        runs, losses = _measure(context, path)
    report = {
        "num_questions": labels.height,
        "batch_size": context.config.training.global_batch_size,
        "num_steps": arguments.steps,
        "first_loss": losses,
        "machine": describe_machine(),
        **_figures(runs, context.config.training.global_batch_size),
    }
    _show(report)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    is_slow = arguments.require is not None and report["ratio"] < arguments.require
    differs = abs(losses["qcrd"] / losses["trainer, mean over texts"] - 1) > TOLERANCE
    return int(is_slow or differs)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=40, help=f"steps a repeat, over {WARM_UP}")
    parser.add_argument("--repeats", type=int, default=5, help="repeats; the median counts")
    parser.add_argument("--require", type=float, help="exit with 1 below this ratio")
    parser.add_argument("--json", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()
    if arguments.steps <= WARM_UP:
        parser.error(f"--steps must be more than {WARM_UP}; got {arguments.steps}")
    return arguments


def _measure(
    context: RunContext, labels: Path
) -> tuple[dict[str, list[tuple[float, float]]], dict[str, float]]:
    """Seconds and CPU seconds a step of each repeat, and the losses of the first step."""
    names = ("qcrd", "trainer")
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    losses: dict[str, float] = {}
    for repeat in range(context.config.training.num_rounds):
        for name in sorted(names, reverse=repeat % 2 == 0):
            ends: list[tuple[float, float]] = []
            job = TrainRound(context.config, context.paths.run_id, repeat, labels)

            def note(_: dict[str, Any], ends: list[tuple[float, float]] = ends) -> None:
                ends.append(_clocks())

            log = context.log(name)
            if name == "qcrd":
                run_job(train_round, job, log=log, on_event=note)
            else:
                first_losses = run_job(train_plainly, job, log=log, on_event=note).value
            start, end = ends[WARM_UP - 1], ends[-1]
            steps = len(ends) - WARM_UP
            runs[name].append(((end[0] - start[0]) / steps, (end[1] - start[1]) / steps))
            if name == "trainer" and repeat == 0:
                losses |= first_losses
    rows = context.store.read_table(context.paths.metrics, Metrics).filter(
        (pl.col("stage") == "train") & (pl.col("name") == "loss") & (pl.col("global_step") == 1)
    )
    return runs, {"qcrd": rows["value"].item(), **losses}


def _clocks() -> tuple[float, float]:
    """Time, and CPU seconds of the children: fork server, job, rank."""
    used = 0.0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            used += times.user + times.system
    return time.monotonic(), used


def train_plainly(job: TrainRound, emit: Emit) -> dict[str, float]:
    """The rival: a job that trains as the original code does.

    Args:
        job: As of `qcrd_core.training.jobs.train_round`.
        emit: Receives `{"advance": 1}` after each step.

    Returns:
        Losses of the first step, by the recipe's mean and by ours.
    """
    context = job.context
    if not has_accelerator():
        torch.set_num_threads(len(os.sched_getaffinity(0)))  # as our loop does
    tokenizer = load_tokenizer(context.store.fetch_folder(context.paths.tokenizer))
    config, training = context.config, context.config.training
    model = make_student(config.student.model, tokenizer, config.run.seed)
    with tempfile.TemporaryDirectory() as folder:
        arguments = Seq2SeqTrainingArguments(
            folder,
            remove_unused_columns=False,
            max_steps=training.steps_per_round,
            per_device_train_batch_size=training.global_batch_size,
            learning_rate=training.learning_rate,
            warmup_steps=training.warmup_steps,
            weight_decay=0.0,
            max_grad_norm=1.0,
            train_sampling_strategy="sequential",
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=not has_accelerator(),
        )
        trainer = TaskPrefixTrainer(
            model=model,
            args=arguments,
            train_dataset=_features(job, tokenizer),
            data_collator=TaskPrefixCollator(tokenizer=tokenizer, model=model),
            callbacks=[_Reporter(emit)],
        )
        trainer.train()
    return trainer.first_losses


class TaskPrefixCollator(DataCollatorForSeq2Seq):
    """Each example twice: its label and its rationale, each with its own copy of the question."""

    def __call__(
        self, features: Sequence[Mapping[str, Any]], return_tensors: str | None = None
    ) -> dict[str, Any]:
        """Pad both to the longest of the batch; labels with -100."""
        return {
            task: super(TaskPrefixCollator, self).__call__(
                [dict(feature[task]) for feature in features], return_tensors
            )
            for task in ("predict", "explain")
        }


class TaskPrefixTrainer(Seq2SeqTrainer):
    """Two passes a step, their losses weighed."""

    first_losses: Mapping[str, float] | None = None

    def compute_loss(self, model: Any, inputs: Mapping[str, Any], **_: Any) -> torch.Tensor:
        """Weigh: alpha x the label's loss + (1 - alpha) x the rationale's."""
        label, rationale = model(**inputs["predict"]), model(**inputs["explain"])
        loss: torch.Tensor = ALPHA * label.loss + (1 - ALPHA) * rationale.loss
        if self.first_losses is None:
            ours = [
                _mean_over_texts(outputs.logits.detach(), inputs[task]["labels"])
                for outputs, task in ((label, "predict"), (rationale, "explain"))
            ]
            self.first_losses = {
                "trainer": loss.item(),
                "trainer, mean over texts": ALPHA * ours[0] + (1 - ALPHA) * ours[1],
            }
        return loss


class _Reporter(TrainerCallback):
    def __init__(self, emit: Emit) -> None:
        self.emit = emit

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Called by the Trainer."""
        self.emit({"advance": 1})


def _mean_over_texts(logits: torch.Tensor, labels: torch.Tensor) -> float:
    nll = functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=_IGNORED, reduction="none"
    ).view_as(labels)
    return (nll.sum(dim=1) / (labels != _IGNORED).sum(dim=1)).mean().item()


def _features(job: TrainRound, tokenizer: Any) -> list[dict[str, Any]]:
    """What our loop reads in this round, step by step, tokenised by the same functions."""
    context, round_, training = job.context, job.round, job.config.training
    scores = context.store.read_table(context.paths.scores(round_), Scores)
    labels = pl.read_parquet(job.labels)
    examples, _ = make_examples(labels, scores, tokenizer, context.config.student, end=True)
    steps = training.steps_in_round(len(examples))
    return [
        _feature(examples[row])
        for step in range(round_ * steps, (round_ + 1) * steps)
        for row in batch_rows(
            len(examples), training.global_batch_size, step, context.config.run.seed
        )
    ]


def _feature(example: Example) -> dict[str, Any]:
    (rationale,) = example.rationales
    pairs = {
        "predict": (example.predict_ids, example.label_ids),
        "explain": (example.explain_ids, rationale.ids),
    }
    return {
        task: {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels}
        for task, (ids, labels) in pairs.items()
    }


def _figures(runs: dict[str, list[tuple[float, float]]], batch_size: int) -> dict[str, Any]:
    wall, cpu = (
        {name: statistics.median(run[clock] for run in of_one) for name, of_one in runs.items()}
        for clock in (0, 1)
    )
    return {
        "seconds_per_step": wall,
        "cpu_seconds_per_step": cpu,
        "samples_per_second": {name: batch_size / seconds for name, seconds in wall.items()},
        "ratio": wall["trainer"] / wall["qcrd"],
        "cpu_ratio": cpu["trainer"] / cpu["qcrd"],
        "target": TARGET,
        "runs": runs,
    }


def _show(report: dict[str, Any]) -> None:
    print(
        f"{'way':<8} {'samples/s':>10} {'ms/step':>8} {'fastest':>8} {'slowest':>8} {'CPU ms':>7}"
    )
    for name, seconds in report["seconds_per_step"].items():
        runs = [run[0] for run in report["runs"][name]]
        print(
            f"{name:<8} {report['samples_per_second'][name]:>10.1f} {1000 * seconds:>8.0f} "
            f"{1000 * min(runs):>8.0f} {1000 * max(runs):>8.0f} "
            f"{1000 * report['cpu_seconds_per_step'][name]:>7.0f}"
        )
    print(
        f"qcrd / trainer {report['ratio']:.2f} x, by CPU time {report['cpu_ratio']:.2f} x; "
        f"target {TARGET:g} x"
    )
    losses = ", ".join(f"{name} {value:.6f}" for name, value in report["first_loss"].items())
    print(f"Loss of the first step: {losses}.")
    print(
        f"{report['num_questions']} questions in batches of {report['batch_size']}, "
        f"{report['num_steps']} steps a repeat"
    )
    show_machine(report["machine"])


if __name__ == "__main__":
    sys.exit(main())
