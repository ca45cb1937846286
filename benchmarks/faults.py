"""What each fault leads to, on a real server, worker and runs: a table.

    .venv/bin/python -m benchmarks.faults                  all faults, five runs each, SQLite
    .venv/bin/python -m benchmarks.faults --faults cancel,flow --runs 2
    .venv/bin/python -m benchmarks.faults --postgres      on a PostgreSQL, with its restart
    .venv/bin/python -m benchmarks.faults --postgres --faults postgres      its restart alone

For each fault so many runs of `distill` start at once on the loopback, each on its own store,
with a stub of vLLM as a child process and real DeepSpeed jobs. Each is somewhere else when the
fault comes, for sampling takes longer in one than in another. Then the script waits until all have
ended, starts them again with the same values, and checks that nothing is lost or doubled. All it
starts it ends; at most 30 minutes a fault.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import psutil

from qcrd_core.inspect.validate import validate_store
from qcrd_core.store.store import Store
from qcrd_core.teacher.servers.launch import free_port
from tests.support.distillation import NUM_TRAIN, qcrd, settings_for
from tests.support.postgres import postgres
from tests.support.processes import is_running
from tests.support.tiny_llama import make_tiny_llama

# One deployment each, since a deployment has one run at a time.
_DEPLOYMENTS = ("distill", "distill-quickstart", "distill-svamp", "distill-cqa", "distill-anli")
_STUB = Path("tests/support/stub_vllm.py").absolute()
_FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
_NUM_SAMPLES = 5
_ENOUGH_SECONDS = 900.0
_CHILDREN_SECONDS = 30.0


@dataclass
class Run:
    """One run of a deployment and its store."""

    number: int
    deployment: str
    config: dict[str, Any]
    id: str = ""

    @property
    def store(self) -> Path:
        """Its store, a folder."""
        return Path(self.config["run"]["store"])

    @property
    def place(self) -> str:
        """What it is doing, by what is in its store."""
        if any(self.store.glob("runs/*/result.json")):
            return "done"
        rounds = len(list(self.store.glob("runs/*/metrics/train-round=*.parquet")))
        if any(self.store.glob(f"runs/*/scores/*={rounds:03}.parquet")):
            return f"training {rounds}"
        if rounds or any(self.store.glob("runs/*/tokenizer/DONE")):
            return f"round {rounds}"
        parts = len(list(self.store.rglob("generation=*/part-*.parquet")))
        return f"{parts} parts" if any(self.store.rglob("generation.json")) else "before sampling"

    def flaw(self) -> str:
        """What is lost or doubled; empty if nothing is."""
        rows = pl.concat(
            [pl.read_parquet(part) for part in self.store.rglob("generation=*/part-*.parquet")]
        )
        keys = rows.select("question_id", "sample_idx").n_unique()
        found = [str(one) for one in validate_store(Store(str(self.store), self.store)).findings]
        if (rows.height, keys) != (NUM_TRAIN * _NUM_SAMPLES,) * 2:
            found.append(f"{rows.height} rows of {keys} keys")
        if len(list(self.store.glob("runs/*/result.json"))) != 1:
            found.append("no result")
        return "; ".join(found)


class Machine:
    """A `qcrd up` with its own home."""

    def __init__(self, home: Path) -> None:
        """Start it, and let as many runs at once as there are deployments."""
        self.home = home
        self.up("--port", str(free_port()))
        self.api = httpx.Client(
            base_url=f"{(home / 'url').read_text().strip()}/api",
            auth=tuple((home / "auth").read_text().split(":")),
            timeout=30,
            trust_env=False,
        )
        queue = "/work_pools/qcrd/queues/training"
        self.ask("PATCH", queue, {"concurrency_limit": len(_DEPLOYMENTS)})

    def up(self, *arguments: str) -> None:
        """Start what is missing."""
        done = qcrd("up", *arguments)
        assert done.returncode == 0, done.stderr

    def pid(self, name: str) -> int:
        """Process of the server or the worker."""
        return int(json.loads((self.home / f"{name}.json").read_text())["pid"])

    def ask(self, method: str, path: str, content: Any = None) -> Any:
        """One request, again while the server is away or its database locked."""
        deadline = time.monotonic() + 120
        while True:
            try:
                answer = self.api.request(method, path, json=content)
                if answer.status_code < 500:
                    answer.raise_for_status()
                    return answer.json() if answer.content else None
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline, f"{path} did not answer"
            time.sleep(1)

    def trigger(self, run: Run) -> None:
        """Start a run of its deployment with its settings."""
        deployment = self.ask("GET", f"/deployments/name/distill/{run.deployment}")["id"]
        path = f"/deployments/{deployment}/create_flow_run"
        run.id = self.ask("POST", path, {"parameters": {"config": run.config}})["id"]

    def state(self, run: Run) -> str:
        """Type of its state."""
        return str(self.ask("GET", f"/flow_runs/{run.id}")["state"]["type"])

    def wait(self, runs: list[Run], states: set[str]) -> list[float]:
        """Seconds until each is in one of the states."""
        start, seconds = time.monotonic(), dict.fromkeys((run.number for run in runs), -1.0)
        while any(value < 0 for value in seconds.values()):
            for run in runs:
                if seconds[run.number] < 0 and self.state(run) in states:
                    seconds[run.number] = time.monotonic() - start
            late = time.monotonic() - start > _ENOUGH_SECONDS
            assert not late, [(run.deployment, self.state(run), run.place) for run in runs]
            time.sleep(0.5)
        return list(seconds.values())

    def flows(self) -> list[psutil.Process]:
        """Processes of the runs: children of Prefect's worker."""
        workers = psutil.Process(self.pid("worker")).children()
        return [run for worker in workers for run in worker.children()]

    def family(self) -> list[psutil.Process]:
        """The runs' processes and all below them."""
        runs = self.flows()
        return [*runs, *(child for run in runs for child in run.children(recursive=True))]


def cancel(machine: Machine, runs: list[Run]) -> None:
    """Cancel as the UI does."""
    state = {"type": "CANCELLING", "name": "Cancelling"}
    for run in runs:
        machine.ask("POST", f"/flow_runs/{run.id}/set_state", {"state": state})


def flow(machine: Machine, _: list[Run]) -> None:
    """Kill the runs' processes."""
    for process in machine.flows():
        process.kill()


def worker_and_flow(machine: Machine, _: list[Run]) -> None:
    """Kill the worker and the runs' processes, as with a power cut."""
    flows = machine.flows()
    os.kill(machine.pid("worker"), signal.SIGKILL)
    for process in flows:
        process.kill()


def worker_stopped(machine: Machine, _: list[Run]) -> None:
    """SIGTERM to the worker, as `docker compose stop` sends it."""
    os.kill(machine.pid("worker"), signal.SIGTERM)


def server(machine: Machine, _: list[Run]) -> None:
    """Kill the server and start it half a minute later."""
    process = psutil.Process(machine.pid("server"))
    for one in [*process.children(recursive=True), process]:
        one.kill()
    time.sleep(30)
    machine.up("--port", str(machine.api.base_url.port))


@dataclass(frozen=True)
class Fault:
    """What goes wrong."""

    hit: Callable[[Machine, list[Run]], None]
    ends: bool = True
    """Whether it ends the runs."""
    in_training: bool = False
    """Whether it comes when most runs train, not when the first one samples."""

    def may_come(self, places: list[str]) -> bool:
        """Whether the runs are where it is to hit them."""
        if self.in_training:
            return 2 * sum(place.startswith("training") for place in places) > len(places)
        return any(place != "before sampling" for place in places)


FAULTS = {
    "cancel": Fault(cancel),
    "cancel-training": Fault(cancel, in_training=True),
    "flow": Fault(flow),
    "flow-training": Fault(flow, in_training=True),
    "worker-stopped": Fault(worker_stopped),
    "worker-and-flow": Fault(worker_and_flow),
    "server": Fault(server, ends=False),
}


def main() -> None:
    """Do what the arguments say and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", default=",".join(FAULTS))
    parser.add_argument("--runs", type=int, default=5, choices=range(1, len(_DEPLOYMENTS) + 1))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--postgres", action="store_true")
    args = parser.parse_args()
    wanted = dict.fromkeys(args.faults.split(",") + ["postgres"] * args.postgres)
    if unknown := set(wanted) - {*FAULTS, *["postgres"] * args.postgres}:
        parser.error(f"--faults must be some of {', '.join(FAULTS)}; got {', '.join(unknown)}")
    # Else a SIGTERM, of `timeout` for example, would leave server and worker behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="qcrd-faults-") as name:
        folder = Path(name)
        with _machine(folder, on_postgres=args.postgres) as (machine, restart):
            faults = dict(FAULTS)
            if restart is not None:
                faults["postgres"] = Fault(lambda *_: restart(), ends=False)
            print("fault            at                      ended as   after   children  again")
            for fault in wanted:
                _try(machine, fault, faults[fault], _make_runs(folder / fault, args))


@contextmanager
def _machine(
    folder: Path, *, on_postgres: bool
) -> Iterator[tuple[Machine, Callable[[], None] | None]]:
    launcher = folder / "vllm-python"
    launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{_STUB}" "$@"\n')
    launcher.chmod(0o755)
    home = folder / "home"
    os.environ |= {
        "PREFECT_HOME": str(home),
        "QCRD_VLLM_PYTHON": str(launcher),
        "QCRD_STUB": "slow",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
    }
    make_tiny_llama(folder / "llama", max_length=1024)
    if not on_postgres:
        try:
            yield Machine(home), None
        finally:
            qcrd("down")
        return
    with postgres() as database:
        os.environ |= database.environment
        try:
            yield Machine(home), database.restart
        finally:
            qcrd("down")


def _make_runs(folder: Path, args: argparse.Namespace) -> list[Run]:
    chance = random.Random(f"{args.seed} {folder.name}")
    runs = []
    for number, deployment in enumerate(_DEPLOYMENTS[: args.runs]):
        teacher = {
            "model": {"type": "folder", "path": str(folder.parent / "llama")},
            "endpoints": None,
            # 120 samples of 0.2 s each: 3 to 24 s.
            "concurrency": chance.choice((1, 2, 4, 8)),
            "num_samples": _NUM_SAMPLES,
            "shards_in_flight": 1,
        }
        config = settings_for(
            folder / str(number),
            _NoEngine(),  # type: ignore[arg-type]
            teacher=teacher,
            voting={"tie": "first"},
            training={"checkpoint_seconds": 0.5, "steps_per_round": 40},
        )
        config["run"]["name"] = f"run-{number}"
        runs.append(Run(number, deployment, config))
    return runs


class _NoEngine:
    url = ""


def _try(machine: Machine, name: str, fault: Fault, runs: list[Run]) -> None:
    for run in runs:
        machine.trigger(run)
    machine.wait(runs, {"RUNNING", *_FINAL})
    deadline = time.monotonic() + _ENOUGH_SECONDS
    while not fault.may_come([run.place for run in runs]) and time.monotonic() < deadline:
        time.sleep(0.5)
    time.sleep(random.Random(name).uniform(0, 20))
    places, family = [run.place for run in runs], machine.family()
    fault.hit(machine, runs)
    start = time.monotonic()
    alive = -1
    if fault.ends:
        while time.monotonic() - start < _CHILDREN_SECONDS:
            alive = sum(is_running(process.pid) for process in family)
            if alive == 0:
                break
            time.sleep(0.5)
    waited = time.monotonic() - start
    seconds = [waited + one for one in machine.wait(runs, _FINAL)]
    ended = [machine.state(run) for run in runs]
    machine.up()
    for run in runs:
        machine.trigger(run)
    machine.wait(runs, _FINAL)
    for run, place, state, after in zip(runs, places, ended, seconds, strict=True):
        again = machine.state(run)
        flaw = run.flaw() if again == "COMPLETED" else "not complete"
        children = "-" if alive < 0 else str(alive)
        print(
            f"{name:16} {place:22}  {state:10} {after:4.0f} s  {children:>8}  "
            f"{again}{', ' + flaw if flaw else ', nothing lost or doubled'}",
            flush=True,
        )


if __name__ == "__main__":
    main()
