"""A store of a million rationales: how long it takes to vote over it and to look into it.

    .venv/bin/python -m benchmarks.scale                     1,000,000 rows, below .qcrd/scale
    .venv/bin/python -m benchmarks.scale --rows 10000000     10,000,000

Two stores of the same rows: `small`, in parts of 64 questions as a run writes them, and `compact`,
after `qcrd compact`. Both are made once and kept. Each measurement runs in its own process, so its
peak memory is its own. `first look` reads the footers of all parts, which later looks find in the
scratch folder. Medians of three, but for what takes a minute. Writes a table here and JSON where
--out says.
"""

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl

from benchmarks.scale_store import (
    DATASET,
    IDENTITY,
    QUESTIONS_PER_PART,
    RUN_ID,
    make_store,
    open_scale,
)
from data_schemas import Votes
from qcrd_core.inspect.find import find_rows
from qcrd_core.inspect.question import read_question
from qcrd_core.inspect.summary import summarize
from qcrd_core.inspect.view import View, open_view
from qcrd_core.progress import progress
from qcrd_core.store.compact import compact
from qcrd_core.store.store import Store
from qcrd_core.teacher.generation import generation_folder
from qcrd_core.teacher.plan import plan_sampling
from qcrd_core.vote.majority import VOTE_COLUMNS, vote
from qcrd_core.vote.rationales import read_rationales

TARGETS = {
    1_000_000: {"vote": 15.0, "question": 0.3},
    10_000_000: {"vote": 150.0, "plan": 10.0, "question": 0.3, "summary": 5.0},
}
"""Seconds on two cores."""

_REPEATS = 3
_ENOUGH_SECONDS = 20.0


def main() -> None:
    """Make the stores that are absent, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=Path(".qcrd/scale"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--measure", nargs=2, metavar=("STORE", "NAME"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(_measure(Path(args.measure[0]), args.measure[1])))
        return
    results = []
    print("store    what         seconds  target  peak GiB")
    for place in _stores(args.folder / f"{args.rows}", args.rows):
        for name in _MEASURED:
            command = [sys.executable, "-m", "benchmarks.scale", "--measure", str(place), name]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found = {"store": place.name, "what": name, **json.loads(done.stdout)}
            found["target"] = TARGETS.get(args.rows, {}).get(name)
            results.append(found)
            target = found["target"] or ""
            print(
                f"{place.name:<9}{name:<13}{found['seconds']:>7.2f}  {target:>6}  "
                f"{found['peak_gib']:>8.2f}",
                flush=True,
            )
    if args.out:
        args.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _stores(folder: Path, num_rows: int) -> list[Path]:
    small, joined = folder / "small", folder / "compact"
    if not (small / "runs" / RUN_ID / "config.yaml").exists():
        print(f"Making {small}", flush=True)
        make_store(small, num_rows, questions_per_part=QUESTIONS_PER_PART)
        context = open_scale(small)
        votes = _vote(small)
        context.store.write_table(context.paths.votes, votes, Votes)
    if not joined.exists():
        temporary, generation = folder / "_tmp-compact", generation_folder(DATASET, IDENTITY)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(small, temporary)
        with progress("Compact", num_rows, "rows") as bar:
            compact(Store(str(temporary), folder / "scratch"), generation, bar)
        temporary.rename(joined)
    return [small, joined]


def _measure(place: Path, name: str) -> dict[str, float]:
    scratch = place.with_name(f"scratch-{place.name}")
    if name == "first look":
        shutil.rmtree(scratch, ignore_errors=True)
    work = _MEASURED[name](place, open_view(f"{place}/runs/{RUN_ID}", scratch))
    repeats = 1 if name == "first look" else _REPEATS
    seconds: list[float] = []
    while len(seconds) < repeats and sum(seconds) < _ENOUGH_SECONDS:
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    return {"seconds": statistics.median(seconds), "peak_gib": peak}


def _vote(place: Path) -> pl.DataFrame:
    context = open_scale(place)
    rows = read_rationales(context, VOTE_COLUMNS)
    return vote(rows, context.read_questions("train"), "abstain")


def _plan(place: Path) -> None:
    context = open_scale(place)
    plan = plan_sampling(
        context.store,
        DATASET,
        IDENTITY,
        questions=context.read_questions("train"),
        teacher=context.config.teacher,
    )
    if plan.num_missing:
        msg = f"Nothing must be missing in {place}; got {plan.num_missing}. Delete it."
        raise RuntimeError(msg)


def _question(view: View) -> Callable[[], object]:
    ids = view.questions().select("question_id").collect()["question_id"]
    return lambda: read_question(view, ids[len(ids) // 2])


_MEASURED: dict[str, Callable[[Path, View], Callable[[], object]]] = {
    "first look": lambda _, view: lambda: summarize(view),
    "summary": lambda _, view: lambda: summarize(view),
    "question": lambda _, view: _question(view),
    "where": lambda _, view: (
        lambda: find_rows(view, "agreement < 0.5 AND is_correct AND num_tokens > 40", limit=50)
    ),
    "plan": lambda place, _: lambda: _plan(place),
    "vote": lambda place, _: lambda: _vote(place),
}
"""What is made ready before the clock starts, and returns what is timed."""


if __name__ == "__main__":
    main()
