"""A run has one worker on a machine, and a dead worker holds nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qcrd_core.config import RunConfig
from qcrd_core.errors import StoreError
from qcrd_core.locks import run_lock

ROOT = Path(__file__).parents[2]
_HOLD = """
import json, sys, time
from qcrd_core.config import RunConfig
from qcrd_core.locks import run_lock

with run_lock(RunConfig.model_validate(json.loads(sys.argv[1])), "one"):
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


def test_run_lock_held_by_another_process_is_refused_until_that_is_killed(config):
    command = [sys.executable, "-c", _HOLD, config.model_dump_json()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as other:
        assert other.stdout.readline() == b"held\n"
        message = f"one process only; one is in the hands of process {other.pid}\\. Wait for it"
        with pytest.raises(StoreError, match=message), run_lock(config, "one"):
            pass
        other.kill()
    with run_lock(config, "one"):
        pass


def test_run_lock_of_another_run_is_free(config):
    with run_lock(config, "one"), run_lock(config, "two"):
        held = (config.run.scratch / "runs" / "one" / "lock").read_text(encoding="utf-8")
    assert held == f"{os.getpid()}\n"
