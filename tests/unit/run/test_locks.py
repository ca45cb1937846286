"""One process of a machine trains a run, several may sample it; a dead one holds nothing."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from qcrd_core.config.run import RunConfig
from qcrd_core.errors import StoreError
from qcrd_core.run.locks import is_worked_on, run_lock, sampling_lock

ROOT = Path(__file__).parents[3]
_HOLD = """
import json, sys, time
from qcrd_core.config.run import RunConfig
from qcrd_core.run.locks import run_lock, sampling_lock

lock = {"run": run_lock, "sampling": sampling_lock}[sys.argv[2]]
with lock(RunConfig.model_validate(json.loads(sys.argv[1])), "one"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def config(tmp_path):
    tiny = {"type": "scratch"}
    return RunConfig.model_validate(
        {
            "run": {"name": "a", "store": str(tmp_path / "s"), "scratch": str(tmp_path / "t")},
            "data": {"dataset": "word_problems"},
            "teacher": {"model": {"type": "hub", "name": "none"}},
            "discriminator": {"model": tiny},
            "student": {"model": tiny},
        }
    )


@pytest.fixture
def served(config):
    teacher = config.teacher.model_dump() | {"endpoints": ["http://gpu1:8000/v1"]}
    return RunConfig.model_validate(config.model_dump() | {"teacher": teacher})


@contextmanager
def _another_holds(name, config):
    command = [sys.executable, "-c", _HOLD, config.model_dump_json(), name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as other:
        assert other.stdout.readline() == b"held\n"
        yield other.pid
        other.kill()


def test_run_lock_held_by_another_process_is_refused_until_that_is_killed(config):
    with _another_holds("run", config) as pid:
        message = f"Run one is already being trained by process {pid}\\. Wait for it"
        with pytest.raises(StoreError, match=message), run_lock(config, "one"):
            pass
    with run_lock(config, "one"):
        pass


def test_several_processes_may_sample_running_servers(served):
    with _another_holds("sampling", served), sampling_lock(served, "one"):
        pass


def test_second_process_is_refused_where_each_would_start_the_teacher(config):
    with _another_holds("sampling", config) as pid:
        message = rf"being sampled by process {pid}\. Only running servers \(teacher\.endpoints\)"
        with pytest.raises(StoreError, match=message), sampling_lock(config, "one"):
            pass


@pytest.mark.parametrize("lock", [run_lock, sampling_lock])
def test_run_that_somebody_samples_or_trains_is_worked_on(served, lock):
    with lock(served, "one"):
        assert is_worked_on(served.run.scratch, "one")
    assert not is_worked_on(served.run.scratch, "one")


def test_run_lock_of_another_run_is_free(config):
    with run_lock(config, "one"), run_lock(config, "two"):
        held = (config.run.scratch / "runs" / "one" / "lock").read_text(encoding="utf-8")
    assert held == f"{os.getpid()}\n"
