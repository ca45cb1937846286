"""What ranks, ZeRO stages and adapters cost and save: memory per rank, steps per second.

    .venv/bin/python -m benchmarks.ranks [--ranks 1 2 4] [--steps 4] [--json FILE]

Each case trains the same steps on the quickstart's shipped samples in its own job, dropout 0,
float32, 4 questions a step and 1 a pass. Memory is the largest that a rank has for itself (USS, so
pages shared with the fork server do not count), looked at after each step. Steps per second
begin after the second one. `loss differs` is the largest difference of any step's loss from that of
one rank without ZeRO. Ranks beyond the cores share them: on such a
machine the table says what is saved in memory, and not what a cluster would gain in time.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import polars as pl
import psutil

from benchmarks.machine import describe_machine, show_machine
from benchmarks.word_problems import labels_with_rationale, prepare_run
from data_schemas import Metrics
from qcrd_core.config.models import ScratchWeights
from qcrd_core.config.run import RunConfig
from qcrd_core.run.context import RunContext
from qcrd_core.runtime.processes import run_job
from qcrd_core.student.tokenizer import load_tokenizer
from qcrd_core.student.weights import make_student
from qcrd_core.training.jobs import TrainRound, train_round

STUDENT = ScratchWeights(hidden_size=384, num_layers=4, dropout=0.0)
LORA = {"rank": 8, "alpha": 16, "dropout": 0.0}
WARM_UP = 2
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    num_ranks: int
    zero_stage: int
    has_lora: bool


def main() -> int:
    """Prepare once, train each case, print the table.

    Returns:
        Exit code: 1 if a case's losses differ from those of one rank.
    """
    arguments = _arguments()
    cases = [Case(*case) for case in product(arguments.ranks, arguments.stages, arguments.lora)]
    with tempfile.TemporaryDirectory() as folder:
        context, num_weights = _prepare(Path(folder), arguments.steps)
        path = Path(folder, "labels.parquet")
        labels_with_rationale(context).write_parquet(path)
        reference = {
            lora: _losses(_train(context, Case(1, 0, lora), path)[0]) for lora in arguments.lora
        }
        rows = []
        for case in cases:
            rows.append(_measure(context, case, path, reference[case.has_lora]))
            print(rows[-1], file=sys.stderr, flush=True)
    report = {"num_weights": num_weights, "machine": describe_machine(), "rows": rows}
    _show(report)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return int(any(row["loss_difference"] > TOLERANCE for row in rows))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--stages", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--lora", type=lambda text: text == "on", nargs="+", default=[False, True])
    parser.add_argument("--steps", type=int, default=4, help=f"steps a case, over {WARM_UP}")
    parser.add_argument("--json", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()
    if arguments.steps <= WARM_UP:
        parser.error(f"--steps must be more than {WARM_UP}; got {arguments.steps}")
    return arguments


def _prepare(folder: Path, steps: int) -> tuple[RunContext, int]:
    """A run whose student is a folder, as adapters need one, and its number of weights."""
    context = prepare_run(
        folder,
        training__num_rounds=1,
        training__steps_per_round=steps,
        training__checkpoint_seconds=3600,
        training__global_batch_size=4,
        training__micro_batch_size=1,
    )
    tokenizer = load_tokenizer(context.store.fetch_folder(context.paths.tokenizer))
    student = make_student(STUDENT, tokenizer, 0)
    student.save_pretrained(folder / "student")
    content = context.config.model_dump(mode="json")
    content["student"]["model"] = {"type": "folder", "path": str(folder / "student")}
    config = RunConfig.model_validate(content)
    num_weights = sum(weight.numel() for weight in student.parameters())
    return RunContext.open(config, context.paths.run_id), num_weights


def _train(context: RunContext, case: Case, labels: Path) -> tuple[RunContext, list[float], int]:
    """Train a case: its run, when each step ended, and the most bytes that a rank had."""
    content = context.config.model_dump(mode="json")
    content["student"]["lora"] = LORA if case.has_lora else None
    ranks = {"num_processes": case.num_ranks, "zero_stage": case.zero_stage}
    content["training"] |= ranks
    run = RunContext.open(RunConfig.model_validate(content), context.paths.run_id)
    for rel in (f"{run.paths.root}/checkpoints", run.paths.metrics_part("train", 0)):
        run.store.delete(rel)
    ends: list[float] = []
    memory = [0]

    def look(_event: dict[str, Any]) -> None:
        ends.append(time.monotonic())
        memory.append(max((_own_memory(rank) for rank in _ranks()), default=0))

    job = TrainRound(run.config, run.paths.run_id, 0, labels)
    log = run.scratch / "ranks.log"
    run_job(train_round, job, log=log, on_event=look)
    return run, ends, max(memory)


def _ranks() -> list[psutil.Process]:
    """Grandchildren of the fork server: its children are jobs, and theirs are ranks."""
    return [
        rank
        for server in psutil.Process().children()
        for job in server.children()
        for rank in job.children()
    ]


def _own_memory(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().uss)
    except psutil.NoSuchProcess:
        return 0


def _losses(run: RunContext) -> list[float]:
    metrics = run.store.read_table(run.paths.metrics_part("train", 0), Metrics)
    losses: list[float] = (
        metrics.filter(pl.col("name") == "loss").sort("global_step")["value"].to_list()
    )
    return losses


def _measure(
    context: RunContext, case: Case, labels: Path, reference: list[float]
) -> dict[str, Any]:
    run, ends, memory = _train(context, case, labels)
    pairs = zip(_losses(run), reference, strict=True)
    return {
        **asdict(case),
        "steps_per_second": (len(ends) - WARM_UP) / (ends[-1] - ends[WARM_UP - 1]),
        "bytes_per_rank": memory,
        "loss_difference": max(abs(one - other) for one, other in pairs),
    }


def _show(report: dict[str, Any]) -> None:
    print("| ranks | ZeRO stage | weights that learn | MB a rank | steps/s | loss differs |")
    print("|---|---|---|---|---|---|")
    for row in report["rows"]:
        print(
            f"| {row['num_ranks']} | {row['zero_stage']} | "
            f"{'adapters' if row['has_lora'] else 'all'} | {row['bytes_per_rank'] / 1e6:,.0f} | "
            f"{row['steps_per_second']:.2f} | {row['loss_difference']:.0e} |"
        )
    print(f"T5 student of {report['num_weights'] / 1e6:.1f} M weights")
    show_machine(report["machine"])


if __name__ == "__main__":
    sys.exit(main())
