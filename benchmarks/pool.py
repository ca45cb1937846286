"""Sampling from a pool of servers of known speed: what of their speed arrives, and our own cost.

    .venv/bin/python -m benchmarks.pool [--questions 5000] [--samples 5] [--rate 2000] [--out FILE]

Each server is a process (`benchmarks.pool_server`): 16 slots, a fixed number of tokens per second,
vLLM's API with log-probabilities. Cases: 1, 2, 5 and 10 servers; 10 of which one is four times
slower; 10 of which one dies a third of the way; both. All cases sample the same questions, the
table is compared text by text with that of one server. Cases with fewer servers get fewer
questions, so that each takes about as long; the comparison is over those they share.

`share` is tokens per second against the sum of the rates that were there: a dying server counts
until it died. `cpu ms` is this process's own CPU time a sample, everything included: rendering,
HTTP, parsing, extraction, Parquet. `waits` is the part of the time that this process was ready and
got no core: where others use the machine, it is their doing and lowers the share. Targets: share >=
0.95, with a dying and a slow one >= 0.90 of what is left; cpu <= 0.3 ms.
"""

import argparse
import contextlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from data_schemas import Questions
from qcrd_core.config.run import RunConfig, validate_config
from qcrd_core.data.answers import AnswerSpec
from qcrd_core.data.spec import DatasetSpec, WordProblemsSource
from qcrd_core.progress import progress
from qcrd_core.store.store import Store
from qcrd_core.teacher.budget import Meter, Tokens
from qcrd_core.teacher.generation import generation_identity
from qcrd_core.teacher.job import SamplingJob
from qcrd_core.teacher.lengths import check_prompt_lengths
from qcrd_core.teacher.plan import open_generation, plan_sampling, read_samples
from qcrd_core.teacher.prepare import PreparedTeacher
from qcrd_core.teacher.sample import sample_shards
from qcrd_core.teacher.servers.managed import teacher_endpoints

SLOW = 4.0
"""How many times slower a slow server is."""

_SPEC = DatasetSpec(
    name="sums",
    source=WordProblemsSource(seed=0, num_train=1, num_validation=1, num_test=1),
    answer=AnswerSpec(kind="number", stop=("\n\n",)),
)
_PREPARED = PreparedTeacher(
    name="stub", served_name="stub", identity={"type": "hub", "name": "stub"}, revision=None
)


@dataclass(frozen=True)
class Server:
    """How fast one server is, and how long it lives."""

    rate: float
    die_after: float | None = None


@dataclass(frozen=True)
class Case:
    """A pool."""

    name: str
    servers: tuple[Server, ...]
    target: float

    @property
    def rate(self) -> float:
        """Tokens per second of all that live."""
        return sum(server.rate for server in self.servers if server.die_after is None)

    def tokens_in(self, seconds: float) -> float:
        """Tokens that the pool could have decoded."""
        return sum(
            server.rate * min(seconds, server.die_after or seconds) for server in self.servers
        )


def cases(rate: float, seconds: float) -> list[Case]:
    """The pools of the benchmark.

    Args:
        rate: Tokens per second of a server.
        seconds: About how long a case takes.

    Returns:
        The cases, that of one server first.
    """
    one, dying = Server(rate), Server(rate, seconds / 3)
    slow = Server(rate / SLOW)
    return [
        *(Case(f"{count} equal", (one,) * count, 0.95) for count in (1, 2, 5, 10)),
        Case("10, one 4 x slower", (one,) * 9 + (slow,), 0.95),
        Case("10, one dies", (one,) * 9 + (dying,), 0.95),
        Case("10, one dies, one 4 x slower", (one,) * 8 + (slow, dying), 0.90),
        Case("10, half of them die", (one,) * 5 + (dying,) * 5, 0.90),
    ]


def main() -> None:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=5000)
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--rate", type=float, default=2000.0, help="tokens per second of a server")
    parser.add_argument("--only", help="cases whose name holds this text, and one server")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    mean_tokens = 64
    seconds = args.questions * args.samples * mean_tokens / (10 * args.rate)
    print(
        f"{'servers':<30} {'samples':>8} {'s':>7} {'tok/s':>8} {'share':>6} {'target':>7} "
        f"{'cpu ms':>7} {'waits':>6} {'equal texts':>12}"
    )
    rows, texts = [], pl.DataFrame()
    for case in cases(args.rate, seconds):
        if args.only and args.only not in case.name and texts.height:
            continue
        num_questions = max(round(args.questions * len(case.servers) / 10), 1)
        row, found = measure(case, num_questions, args.samples)
        texts = found if not texts.height else texts
        both = found.join(texts, on=["question_id", "sample_idx"])
        row |= {
            "compared": both.height,
            "equal": both.filter(pl.col("text") == pl.col("text_right")).height,
        }
        rows.append(row)
        _show(row)
    if args.out:
        args.out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def measure(
    case: Case, num_questions: int, num_samples: int
) -> tuple[dict[str, Any], pl.DataFrame]:
    """Sample from one pool.

    Args:
        case: The pool.
        num_questions: Questions.
        num_samples: K.

    Returns:
        Figures, and question_id, sample_idx and text of each sample.
    """
    with tempfile.TemporaryDirectory() as folder, running(case.servers, Path(folder)) as urls:
        config = _config(Path(folder), urls, num_samples)
        store = Store(config.run.store, config.run.scratch)
        questions = _questions(num_questions)
        identity = generation_identity(config, _SPEC, _PREPARED.identity)
        plan = plan_sampling(
            store, _SPEC.name, identity, questions=questions, teacher=config.teacher
        )
        open_generation(store, plan)
        with teacher_endpoints(
            config.teacher, _PREPARED, Path(folder), Path(folder) / "log"
        ) as pool:
            job = SamplingJob(
                plan=plan,
                questions=questions,
                spec=_SPEC,
                config=config,
                prepared=_PREPARED,
                pool=pool,
                store=store,
                run_id="benchmark",
                meter=Meter(config.budget, Tokens()),
            )
            check_prompt_lengths(job)
            start, cpu, waited = time.monotonic(), time.process_time(), _waited()
            with progress("Sample teacher", plan.num_missing, "samples") as bar:
                sampled = sample_shards(job, plan.shards, bar)
            seconds, cpu = time.monotonic() - start, time.process_time() - cpu
            waited = _waited() - waited
        table = read_samples(
            store, plan.folder, questions=questions, num_samples=config.teacher.num_samples
        )
    num_tokens = sum(result.num_tokens for result in sampled.shards)
    assert table["status"].eq("ok").all()
    figures = {
        "case": case.name,
        "num_samples": table.height,
        "seconds": seconds,
        "tokens_per_second": num_tokens / seconds,
        "share": num_tokens / case.tokens_in(seconds),
        "target": case.target,
        "waited_share": waited / seconds,
        "cpu_ms_per_sample": 1000 * cpu / table.height,
        "num_sent_again": sum(server.num_failures for server in sampled.servers),
        "servers": [
            {"tokens_per_second": server.num_tokens / seconds, "concurrency": server.concurrency}
            for server in sampled.servers
        ],
    }
    return figures, table.select("question_id", "sample_idx", "text")


@contextmanager
def running(servers: Sequence[Server], folder: Path) -> Iterator[list[str]]:
    """Run the servers of a pool for as long as the block runs.

    Args:
        servers: What they are.
        folder: For their port files.

    Yields:
        Their base URLs.
    """
    files = [folder / f"port-{index}" for index in range(len(servers))]
    processes = []
    try:
        for server, file in zip(servers, files, strict=True):
            command = [sys.executable, "-m", "benchmarks.pool_server", str(file)]
            command += ["--rate", str(server.rate)]
            if server.die_after is not None:
                command += ["--die-after", str(server.die_after)]
            processes.append(subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ))
        while not all(file.exists() for file in files):
            time.sleep(0.05)
        yield [f"http://127.0.0.1:{file.read_text(encoding='utf-8')}/v1" for file in files]
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()


def _config(folder: Path, urls: list[str], num_samples: int) -> RunConfig:
    content = {
        "run": {"name": "bench", "store": str(folder / "store"), "scratch": str(folder / "tmp")},
        "data": {"dataset": "sums"},
        "teacher": {
            "model": {"type": "hub", "name": "stub"},
            "endpoints": urls,
            "num_samples": num_samples,
            "max_new_tokens": 128,
        },
        "discriminator": {"model": {"type": "scratch"}},
        "student": {"model": {"type": "scratch"}},
    }
    return validate_config(content, "benchmark")


def _questions(count: int) -> pl.DataFrame:
    story = "A merchant sells {} lamps in the morning and {} lamps after noon. How many in all? "
    texts = [story.format(number, 2 * number + 3) * 3 for number in range(count)]
    columns = {"question_id": [f"q{number:06d}" for number in range(count)], "question": texts}
    empty = Questions.create_empty()
    missing = [
        pl.lit(None, dtype=kind).alias(name)
        for name, kind in empty.schema.items()
        if name not in columns
    ]
    return pl.DataFrame(columns).with_columns(missing).select(empty.columns)


def _waited() -> float:
    """Seconds that this thread was ready to run and got no core (Linux)."""
    return int(Path("/proc/self/schedstat").read_text(encoding="ascii").split()[1]) / 1e9


def _show(row: dict[str, Any]) -> None:
    print(
        f"{row['case']:<30} {row['num_samples']:>8,} {row['seconds']:>7.1f} "
        f"{row['tokens_per_second']:>8,.0f} {row['share']:>6.3f} {row['target']:>7} "
        f"{row['cpu_ms_per_sample']:>7.3f} "
        f"{row['waited_share']:>6.2f} {row['equal']:>6,}/{row['compared']:,}",
        flush=True,
    )


if __name__ == "__main__":
    main()
