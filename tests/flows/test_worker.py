"""Stopping the worker: real processes stand in for Prefect's worker and its flow runs."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.processes import all_gone

ROOT = Path(__file__).parents[2]
# Takes a second to write its checkpoint; a trainer below it does the writing.
RUN = """
import signal, subprocess, sys, time
trainer = '''
import pathlib, signal, sys, time
def save(*_):
    time.sleep(1)
    pathlib.Path(sys.argv[1]).touch()
    sys.exit()
signal.signal(signal.SIGTERM, save)
print("trains", flush=True)
time.sleep(600)
'''
child = subprocess.Popen([sys.executable, "-c", trainer, sys.argv[1]], start_new_session=True)
def stop(*_):
    child.terminate()
    child.wait()
    sys.exit()
signal.signal(signal.SIGTERM, stop)
time.sleep(600)
"""
# Like Prefect's: at SIGTERM it kills its runs and exits. Then it is idle, or would begin another.
WORKER = f"""
import signal, subprocess, sys, time
runs = [subprocess.Popen([sys.executable, "-c", {RUN!r}, sys.argv[1]], start_new_session=True)]
def stop(*_):
    for run in runs:
        run.kill()
    sys.exit(1)
signal.signal(signal.SIGTERM, stop)
runs[0].wait()
print("next run", flush=True)
time.sleep(600)
"""
ABOVE = (
    "import sys; from flows.server.prefect_worker import run_worker; "
    "sys.exit(run_worker(sys.argv[1:]))"
)


@pytest.fixture
def start(tmp_path):
    """Start a worker with one run that trains: (process, all processes below it)."""
    started = []

    def run(*, above=True, worker=WORKER):
        command = [sys.executable, "-c", worker, str(tmp_path / "checkpoint")]
        if above:
            command = [sys.executable, "-c", ABOVE, *command]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        started.append(process)
        if worker is WORKER:
            assert process.stdout.readline() == "trains\n"
        below = psutil.Process(process.pid).children(recursive=True)
        started.extend(below)
        return process, [child.pid for child in below]

    yield run
    for process in reversed(started):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    for process in started:
        if isinstance(process, subprocess.Popen):
            process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_worker_lets_its_run_write_the_checkpoint(start, tmp_path, number):
    process, below = start()
    assert len(below) == 3

    process.send_signal(number)
    rest, _ = process.communicate(timeout=30)

    assert process.returncode == 0
    assert (tmp_path / "checkpoint").exists()
    assert rest == ""  # no other run was begun in the place of the one that ended
    assert all_gone(below)


def test_the_stand_in_kills_its_run_as_prefects_worker_does(start, tmp_path):
    process, below = start(above=False)

    process.terminate()

    assert process.wait(30) == 1
    assert all_gone(below[:1])
    assert not (tmp_path / "checkpoint").exists()


def test_worker_dies_with_the_process_above_it(start):
    process, below = start()

    process.kill()

    assert all_gone(below[:1])


def test_worker_that_ends_by_itself_gives_its_exit_code(start):
    process, _ = start(worker="raise SystemExit(3)")

    assert process.wait(30) == 3
