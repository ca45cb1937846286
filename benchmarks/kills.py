"""kill -9 of `qcrd run` and `qcrd import` everywhere, and what is left: a table.

    .venv/bin/python -m benchmarks.kills                   about 40 kills
    .venv/bin/python -m benchmarks.kills --stores 1        one at each place

A run of three rounds with a stub of the teacher and real DeepSpeed jobs is killed, with all its
processes, the moment a file of a stage appears, and started again, until it was killed at each
place. Its tables and students must then be those of a run that nobody disturbed. An import is
killed after random times and must end with the same rows.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import polars as pl
from polars.testing import assert_frame_equal

from qcrd_core.inspect.validate import validate_store
from qcrd_core.store.store import Store
from tests.support.distillation import (
    qcrd,
    settings_for,
    start_qcrd,
    taught_teacher,
    write_settings,
)

_PLACES = {
    "settings": "runs/*/config.yaml",
    "first part": "datasets/*/rationales/*/part-*.parquet",
    "polarity": "runs/*/polarity.parquet",
    "votes": "runs/*/votes.parquet",
    "tokenizers": "runs/*/_tmp-*tokenizer*",
    "scores 0": "runs/*/scores/round=000.parquet",
    "step of round 0": "runs/*/checkpoints/round=000/engine/*/DONE",
    "student 0": "runs/*/checkpoints/round=000/student/DONE",
    "validation 0": "runs/*/metrics/validation-round=000.parquet",
    "negatives 1": "runs/*/negatives/round=001/*.parquet",
    "discriminator 1": "runs/*/checkpoints/round=001/discriminator/DONE",
    "step of round 2": "runs/*/checkpoints/round=002/engine/*/DONE",
    "test answers": "runs/*/predictions/test/*.parquet",
    "best student": "runs/*/student/DONE",
    "report": "runs/*/report.html",
    "result": "runs/*/result.json",
}
_RANDOM_KILLS, _RANDOM_SECONDS = 4, (5.0, 25.0)
_IMPORT_KILLS = 3
_TABLES = ("votes", "polarity", "scores", "negatives", "predictions")
_CLOCK = ("created_at", "run_id")
_ENOUGH_SECONDS = 300.0


def main() -> None:
    """Kill, compare, and print a table; exit with 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stores", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    draw = random.Random(args.seed)
    flaws = []
    with tempfile.TemporaryDirectory(prefix="qcrd-kills-") as name, taught_teacher() as engine:
        folder = Path(name)
        os.environ["PREFECT_HOME"] = str(folder / "prefect")
        content = settings_for(folder / "undisturbed", engine)
        done = qcrd("run", "--config", write_settings(folder / "undisturbed", content))
        assert done.returncode == 0, done.stderr
        print("store  place              seconds  ended", flush=True)
        num_kills = 0
        for number in range(args.stores):
            place = folder / f"store-{number}"
            num_kills += _kill_everywhere(place, engine, number, draw)
            flaws += _differences(folder / "undisturbed/store", place / "store")
        num_kills += _kill_imports(folder, draw, flaws)
    print(f"\n{num_kills} kills, {len(flaws)} differences")
    for flaw in flaws:
        print(f"  {flaw}")
    raise SystemExit(bool(flaws))


def _kill_everywhere(folder: Path, engine: Any, number: int, draw: random.Random) -> int:
    """Kill one run at every place and at random times, then let it end; returns the kills."""
    training = {"checkpoint_seconds": 0.001}
    teacher = {"concurrency": 4, "shards_in_flight": 1}
    content = settings_for(folder, engine, training=training, teacher=teacher)
    settings, store = write_settings(folder, content), folder / "store"
    waits: list[tuple[str, str | float]] = [*_PLACES.items()]
    for _ in range(_RANDOM_KILLS - number % 2):
        waits.insert(draw.randrange(len(waits)), ("random", draw.uniform(*_RANDOM_SECONDS)))
    num_kills = 0
    for place, until in waits:
        if isinstance(until, str) and any(store.glob(until)):
            until = draw.uniform(*_RANDOM_SECONDS)  # an earlier start came further
        start = time.monotonic()
        process = start_qcrd("run", "--config", settings, log=folder / "log")
        ended = _wait(process, store, until)
        _kill(process)
        num_kills += not ended
        seconds, how = time.monotonic() - start, "by itself" if ended else "killed"
        print(f"{number:>5}  {place:<18} {seconds:7.1f}  {how}", flush=True)
    last = qcrd("run", "--config", settings)
    assert last.returncode == 0, last.stderr
    return num_kills


def _wait(process: subprocess.Popen[bytes], store: Path, until: str | float) -> bool:
    """Wait for a file or for some seconds; returns whether the process ended before."""
    start = time.monotonic()
    while process.poll() is None:
        passed = time.monotonic() - start
        assert passed < _ENOUGH_SECONDS, "The run did not come so far."
        if passed > until if isinstance(until, float) else any(store.glob(until)):
            return False
        time.sleep(0.002)
    return True


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _kill_imports(folder: Path, draw: random.Random, flaws: list[str]) -> int:
    """Kill imports of one file; what they leave must be what one import makes."""
    rows = [
        {"instruction": f"Tom has {n} apples and gets {n}. How many?", "generation": f"{n} + {n}"}
        for n in range(20_000)
    ]
    file = folder / "import.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def arguments(store: Path) -> tuple[str, ...]:
        where = ("--store", str(store), "--dataset", "word_problems", "--format", "distilabel")
        return ("import", str(file), *where)

    start = time.monotonic()
    done = qcrd(*arguments(folder / "imported"))
    assert done.returncode == 0, done.stderr
    whole = time.monotonic() - start
    num_kills = 0
    for _ in range(_IMPORT_KILLS):
        process = start_qcrd(*arguments(folder / "killed"), log=folder / "log")
        ended = _wait(process, folder, draw.uniform(0.3, 0.8) * whole)
        _kill(process)
        num_kills += not ended
        print(f"    -  import             {'by itself' if ended else 'killed'}", flush=True)
    done = qcrd(*arguments(folder / "killed"))
    assert done.returncode == 0, done.stderr
    if not _rows(folder / "imported").equals(_rows(folder / "killed")):
        flaws.append("the import's rows differ")
    flaws += _findings(folder / "killed")
    return num_kills


def _rows(store: Path) -> pl.DataFrame:
    parts = sorted(store.glob("datasets/*/rationales/*/part-*.parquet"))
    rows = pl.concat([pl.read_parquet(part) for part in parts]).drop(_CLOCK)
    return rows.sort("question_id", "sample_idx")


def _differences(undisturbed: Path, store: Path) -> list[str]:
    """Everything in which a killed run is not the undisturbed one."""
    flaws = _findings(store)
    if not _rows(undisturbed).equals(_rows(store)):
        flaws.append(f"{store.parent.name}: the teacher's rows differ")
    (one,), (other,) = undisturbed.glob("runs/*"), store.glob("runs/*")
    if one.name != other.name:
        return [*flaws, f"{store.parent.name}: another run"]
    for table in _TABLES:
        files = _files(one, table)
        if files != _files(other, table):
            flaws.append(f"{store.parent.name}: other files of {table}")
            continue
        for file in files:
            frames = [pl.read_parquet(run / file) for run in (one, other)]
            clean = [frame.drop(_CLOCK, strict=False) for frame in frames]
            try:
                assert_frame_equal(*clean)
            except AssertionError:
                flaws.append(f"{store.parent.name}: {file} differs")
    for weights in one.rglob("student/model.safetensors"):
        same = other / weights.relative_to(one)
        if not same.exists() or same.read_bytes() != weights.read_bytes():
            flaws.append(f"{store.parent.name}: {weights.relative_to(one)} differs")
    return flaws


def _files(run: Path, table: str) -> set[Path]:
    """The parts of a run's table; those of metrics hold times."""
    found = {path.relative_to(run) for path in run.rglob("*.parquet")}
    return {path for path in found if path.parts[0].removesuffix(".parquet") == table}


def _findings(store: Path) -> list[str]:
    opened = Store(str(store), store.parent / "scratch")
    # Leftovers of killed writers are named as such, and `--repair` deletes them.
    return [str(one) for one in validate_store(opened).findings if one.repair != "delete"]


if __name__ == "__main__":
    main()
