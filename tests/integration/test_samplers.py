"""Several Prefect workers sample one run at once, as `prefect.yaml` deploys them."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from qcrd_core.config.run import validate_config
from qcrd_core.stages.plan import begin_run, plan_run
from qcrd_core.stages.sampling import sample_teacher
from tests.support.ask_again import AskAgain
from tests.support.distillation import (
    open_run,
    qcrd,
    rationales,
    settings_for,
    taught_teacher,
)

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).parents[2]
NUM_QUESTIONS, PER_SHARD = 200, 2
NUM_SAMPLES = 5 * NUM_QUESTIONS
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one sampler gets from one server."""
    with taught_teacher() as engine:
        content = _settings(tmp_path_factory.mktemp("alone"), [engine])
        plan = plan_run(validate_config(content, "test"))
        begin_run(plan)
        sample_teacher(plan.context)
        assert engine.num_asked == NUM_SAMPLES
    return rationales(plan.context)


@pytest.fixture(scope="module")
def api(prefect_server):
    """The server with the deployments of prefect.yaml and two workers."""
    environment = {
        "PREFECT_LOGGING_EXTRA_LOGGERS": "qcrd_core",
        "PREFECT_RUNNER_AUTO_INSTALL_DEPENDENCIES": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PYTHONPATH": str(ROOT),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        done = qcrd("deploy")
        assert done.returncode == 0, done.stderr
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "qcrd"]
        command += ["--type", "process", "--install-policy", "never", "--limit", "1"]
        workers = [
            subprocess.Popen(
                command,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            for _ in range(2)
        ]
        try:
            with httpx.Client(
                transport=AskAgain(), base_url=prefect_server, timeout=30, trust_env=False
            ) as client:
                limit = {"concurrency_limit": 2}
                client.patch("/work_pools/qcrd/queues/training", json=limit).raise_for_status()
                yield client
        finally:
            for worker in workers:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(worker.pid, signal.SIGTERM)
                worker.wait(60)


@pytest.mark.parametrize("num_dying", [0, 5], ids=["all live", "half of them die"])
def test_two_workers_at_once_on_ten_servers_give_the_table_of_one(alone, api, tmp_path, num_dying):
    engines = [taught_teacher(delay_seconds=0.1) for _ in range(10)]
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(engine) for engine in engines]
        content = _settings(tmp_path, servers)
        both_are_there = threading.Event()
        for number, server in enumerate(servers):
            server.fault = _Fault(both_are_there, 5 if number < num_dying else None)
        runs = [_start(api, content) for _ in range(2)]
        try:
            # A shard in flight for each server and sampler.
            _wait(lambda: len(_notes(tmp_path)) == 2 * len(servers))
        finally:
            both_are_there.set()
        states = [_end(api, run) for run in runs]
        num_asked = sum(server.num_asked - server.fault.num_dropped for server in servers)

    assert [state["type"] for state in states] == ["COMPLETED"] * 2, states
    assert_frame_equal(rationales(open_run(content)), alone)
    (folder,) = tmp_path.rglob("generation=*")
    stored = pl.concat([pl.read_parquet(path) for path in folder.glob("*.parquet")])
    assert not stored.select("question_id", "sample_idx").is_duplicated().any()
    assert num_asked - NUM_SAMPLES <= 2 * len(servers) * PER_SHARD * 5
    assert not _notes(tmp_path)
    # Prefect sends the log's last lines when the run has ended.
    _wait(lambda: all("Other samplers stored" in _log(api, run) for run in runs))


class _Fault:
    """Lets all wait until both samplers are there; drops every request after so many."""

    def __init__(self, start, num_answered):
        self.start, self.num_left, self.num_dropped = start, num_answered, 0

    def __call__(self, _, __):
        self.start.wait()
        if self.num_left is None:
            return None
        self.num_left -= 1
        if self.num_left >= 0:
            return None
        self.num_dropped += 1
        return "drop"


def _settings(folder, engines):
    teacher = {
        "endpoints": [engine.url for engine in engines],
        "questions_per_shard": PER_SHARD,
        "shards_in_flight": 1,
        "concurrency": 4,
    }
    return settings_for(folder, engines[0], data={"max_train": NUM_QUESTIONS}, teacher=teacher)


def _notes(folder):
    return [path.name for path in folder.rglob("generation=*/_tmp-taken-*")]


def _start(api, content):
    deployment = api.get("/deployments/name/sample-teacher/sample-teacher").json()["id"]
    path = f"/deployments/{deployment}/create_flow_run"
    answer = api.post(path, json={"parameters": {"config": content}})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def _end(api, run):
    def state():
        return api.get(f"/flow_runs/{run}").json()["state"]

    _wait(lambda: state()["type"] in FINAL)
    return state()


def _log(api, run):
    wanted = {"logs": {"flow_run_id": {"any_": [run]}}}
    return "\n".join(line["message"] for line in api.post("/logs/filter", json=wanted).json())


def _wait(condition):
    deadline = time.monotonic() + 180
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
