"""Processes that outlive their starter: found again, never mistaken, and wholly stopped."""

import json
import os
import signal
import sys

import psutil
import pytest

from qcrd_core.runtime.daemons import Daemon
from tests.support.processes import all_gone, is_running

STAY = "import time; time.sleep(600)  # marked"
WITH_CHILD = f"""# marked
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {STAY!r}])
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def start(tmp_path):
    """Start a daemon that runs Python code; whatever is left is killed at the end."""
    started = []

    def run(code):
        daemon = Daemon("one", tmp_path, marker="marked")
        daemon.start([sys.executable, "-c", code], env=dict(os.environ), cwd=tmp_path)
        started.append(daemon)
        return daemon

    yield run
    for daemon in started:
        daemon.stop(0)


def _child_of(daemon):
    while not daemon.log.read_text().strip():
        pass
    return int(daemon.log.read_text())


def test_daemon_is_found_again_by_another_process(start, tmp_path):
    pid = start(STAY).pid

    assert Daemon("one", tmp_path, marker="marked").pid == pid
    assert os.getsid(pid) == pid


def test_start_returns_when_the_command_line_can_be_seen(start, monkeypatch):
    shown, cmdline = [[], [], ["marked"]], psutil.Process.cmdline
    monkeypatch.setattr(psutil.Process, "cmdline", lambda p: shown.pop(0) if shown else cmdline(p))

    assert start(STAY).is_alive()
    assert shown == []


def test_daemon_is_found_again_after_the_clock_was_set(start, monkeypatch):
    daemon = start(STAY)
    begun, booted = psutil.Process.create_time, psutil.boot_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: begun(process) + 3600)
    monkeypatch.setattr(psutil, "boot_time", lambda: booted() + 3600)

    assert daemon.is_alive()


def test_stop_ends_daemon_and_children(start):
    daemon = start(WITH_CHILD)
    pids = [_child_of(daemon), daemon.pid]  # in this order: it runs by then

    assert daemon.stop(1)
    assert all_gone(pids)
    assert not daemon.stop(1)


def test_stop_of_a_killed_daemon_ends_the_child_it_left(start):
    daemon = start(WITH_CHILD)
    child = _child_of(daemon)
    leader = daemon.pid
    os.kill(leader, signal.SIGKILL)

    assert all_gone([leader])
    assert is_running(child)
    assert not daemon.stop(1)
    assert all_gone([child])


@pytest.mark.parametrize(
    ("marker", "shift"), [("marked", 3600), ("other", 0)], ids=["older note", "other program"]
)
def test_used_again_number_is_not_taken_for_the_daemon(start, tmp_path, marker, shift):
    pid = start(STAY).pid
    folder = tmp_path / "other"
    folder.mkdir()
    note = json.loads((tmp_path / "one.json").read_text())
    note["started"] -= shift
    (folder / "one.json").write_text(json.dumps(note))

    assert not Daemon("one", folder, marker=marker).stop(1)
    assert is_running(pid)


@pytest.mark.parametrize("note", ["", "[]", '{"pid": 1}', '{"pid": "x", "started": 0}'])
def test_broken_note_counts_as_not_running(tmp_path, note):
    (tmp_path / "one.json").write_text(note)

    assert not Daemon("one", tmp_path, marker="marked").is_alive()
