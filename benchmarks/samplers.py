"""Several samplers on one run: what they sample together, and what is drawn twice.

    .venv/bin/python -m benchmarks.samplers [--questions 3000] [--servers 4] [--rate 4000] [--out F]

1, 2 and 4 processes sample the same questions from the same servers of known speed
(`benchmarks.pool_server`), each as a run of `sample-teacher` does. `share` is tokens per second
against the sum of the servers' rates, from the first process to begin to the last to end; `twice`
are samples that two processes drew, `bound` is what all have in flight. `cpu ms` is the time of all
processes a sample, imports and planning included. The tables must be equal text by text.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from benchmarks.pool import Server, running
from qcrd_core.config.run import load_config
from qcrd_core.run.context import RunContext
from qcrd_core.stages.plan import begin_run, plan_run
from qcrd_core.stages.sampling import sample_teacher
from qcrd_core.vote.rationales import read_rationales

_SAMPLES, _PER_SHARD, _SHARDS_IN_FLIGHT = 5, 16, 2


def main() -> None:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=3000)
    parser.add_argument("--servers", type=int, default=4)
    parser.add_argument("--rate", type=float, default=4000.0, help="tokens per second of a server")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        _work(Path(args.work[0]), args.work[1])
        return
    print("samplers  samples       s  share  twice  bound  cpu ms")
    rows, texts = [], []
    for count in (1, 2, 4):
        row, table = measure(args, count)
        rows.append(row)
        texts.append(table)
        print(
            f"{count:>8} {row['num_samples']:>8,} {row['seconds']:>7.1f} {row['share']:>6.3f} "
            f"{row['num_twice']:>6,} {row['bound']:>6,} {row['cpu_ms_per_sample']:>7.3f}",
            flush=True,
        )
    assert all(table.equals(texts[0]) for table in texts)
    if args.out:
        args.out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def measure(args: argparse.Namespace, num_samplers: int) -> tuple[dict[str, Any], pl.DataFrame]:
    """Sample with so many processes.

    Args:
        args: Of the command line.
        num_samplers: Processes.

    Returns:
        Figures, and question_id, sample_idx and text of each sample.
    """
    servers = [Server(args.rate)] * args.servers
    with tempfile.TemporaryDirectory() as name, running(servers, Path(name)) as urls:
        folder = Path(name)
        path = _write_settings(folder, urls, args.questions)
        plan = plan_run(load_config(path))
        begin_run(plan)
        command = [sys.executable, "-m", "benchmarks.samplers", "--work", str(path), plan.run_id]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        samplers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(num_samplers)]
        found = [json.loads(sampler.communicate()[0]) for sampler in samplers]
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        table = read_rationales(plan.context, ("text", "num_tokens", "status"))
    assert table["status"].eq("ok").all()
    seconds = max(each["end"] for each in found) - min(each["begin"] for each in found)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    figures = {
        "num_samplers": num_samplers,
        "num_samples": table.height,
        "seconds": seconds,
        "share": table["num_tokens"].sum() / seconds / (args.servers * args.rate),
        "num_sampled": [each["num_sampled"] for each in found],
        "num_twice": sum(each["num_twice"] for each in found),
        "bound": num_samplers * args.servers * _SHARDS_IN_FLIGHT * _PER_SHARD * _SAMPLES,
        "cpu_ms_per_sample": 1000 * cpu / table.height,
    }
    return figures, table.drop("num_tokens", "status")


def _work(path: Path, run_id: str) -> None:
    context = RunContext.open(load_config(path), run_id)
    begin = time.monotonic()
    done = sample_teacher(context)
    print(json.dumps({**done, "begin": begin, "end": time.monotonic()}))


def _write_settings(folder: Path, urls: list[str], num_questions: int) -> Path:
    sizes = {"num_train": num_questions, "num_validation": 10, "num_test": 10}
    dataset = {
        "name": "sums",
        "source": {"type": "word_problems", "seed": 0, **sizes},
        "answer": {"kind": "number", "stop": ["\n\n"]},
    }
    (folder / "sums.yaml").write_text(yaml.safe_dump(dataset), encoding="utf-8")
    scratch = {"model": {"type": "scratch"}}
    content = {
        "run": {"name": "bench", "store": str(folder / "store"), "scratch": str(folder / "tmp")},
        "data": {"dataset": str(folder / "sums.yaml")},
        "teacher": {
            "model": {"type": "hub", "name": "stub"},
            "endpoints": urls,
            "num_samples": _SAMPLES,
            "questions_per_shard": _PER_SHARD,
            "shards_in_flight": _SHARDS_IN_FLIGHT,
            "max_new_tokens": 128,
        },
        "discriminator": scratch,
        "student": scratch,
    }
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


if __name__ == "__main__":
    main()
