"""Prefect's own overhead in a run like the quickstart: wall time outside of all stages.

    .venv/bin/python -m benchmarks.orchestration

Runs `qcrd run` with the quickstart's settings on its own store and with Prefect's embedded
server, as a newcomer does. What the stages took is in the run's own metrics (stage timing). The
rest of the wall time, in which no engine works, is Python's start, Prefect's server, tasks and
artifacts, planning and the report. About seven minutes on two cores. Arguments are settings on
top, for example training.num_rounds=2.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl

TARGET = 0.05
"""Share of the wall time, at most."""


def main() -> None:
    """Measure once and print a table."""
    with tempfile.TemporaryDirectory(prefix="qcrd-orchestration-") as folder:
        settings = [f"run.store={folder}/store", f"run.scratch={folder}/scratch", *sys.argv[1:]]
        command = "from flows.commands.cli import main; main()"
        start = time.monotonic()
        subprocess.run(
            [sys.executable, "-c", command, "run", "-c", "configs/quickstart.yaml", *settings],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        wall = time.monotonic() - start
        stages = _stages(Path(folder))
    inside = sum(stages.values())
    for name, seconds in stages.items():
        print(f"{name:20} {seconds:7.1f} s")
    outside = wall - inside
    print(f"{'outside':20} {outside:7.1f} s = {outside / wall:.1%} of {wall:.1f} s")
    print(f"{'target':20} {TARGET:.0%}: {'kept' if outside <= TARGET * wall else 'missed'}")


def _stages(folder: Path) -> dict[str, float]:
    """Seconds of each stage, summed over the rounds."""
    rows = pl.concat(
        [pl.read_parquet(part) for part in folder.glob("store/runs/*/metrics/*.parquet")]
    )
    timing = rows.filter(pl.col("stage") == "timing", pl.col("name").str.ends_with("_seconds"))
    sums = timing.group_by("name").agg(pl.col("value").sum()).sort("value", descending=True)
    return {name.removesuffix("_seconds"): value for name, value in sums.iter_rows()}


if __name__ == "__main__":
    main()
