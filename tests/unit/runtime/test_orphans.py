"""What is left of a killed run's server, shown with real processes that are named like one."""

import json
import os
import subprocess
import sys
import time

import pytest

from qcrd_core.runtime.daemons import drop_note, kill_orphans, note_server
from tests.support.processes import all_gone


@pytest.fixture
def leftover():
    # -c's further arguments stand in the command line, as the real server's module name does.
    process = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)", "vllm.entrypoints"],
        start_new_session=True,
    )
    _wait_for_name(process.pid, b"vllm")
    yield process
    process.kill()
    process.wait()


def test_kill_orphans_ends_the_server_of_a_dead_owner(tmp_path, leftover):
    _note(tmp_path, owner=2**22 + 1, group=leftover.pid)
    assert kill_orphans(tmp_path) == 1
    assert all_gone([leftover.pid], 0)
    assert not list(tmp_path.iterdir())


def test_kill_orphans_leaves_the_server_of_a_living_owner(tmp_path, leftover):
    note_server(tmp_path, leftover.pid)
    assert kill_orphans(tmp_path) == 0
    assert leftover.poll() is None
    assert len(list(tmp_path.iterdir())) == 1


def test_kill_orphans_ends_the_server_of_an_owner_whose_number_is_used_again(tmp_path, leftover):
    _note(tmp_path, owner=os.getpid(), group=leftover.pid)
    assert kill_orphans(tmp_path) == 1


def test_kill_orphans_leaves_a_foreign_process_under_the_noted_number(tmp_path):
    foreign = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        _wait_for_name(foreign.pid, b"sleep")
        _note(tmp_path, owner=2**22 + 1, group=foreign.pid)
        assert kill_orphans(tmp_path) == 0
        assert foreign.poll() is None
    finally:
        foreign.kill()
        foreign.wait()


@pytest.mark.parametrize("note", ["{", "[]", '{"owner": 1}', '{"owner": "x", "started": 0}'])
def test_kill_orphans_with_a_damaged_note_deletes_it(tmp_path, note):
    (tmp_path / "teacher-server-7.json").write_text(note)
    assert kill_orphans(tmp_path) == 0
    assert not list(tmp_path.iterdir())


def test_drop_note_drops_the_note(tmp_path, leftover):
    note_server(tmp_path, leftover.pid)
    drop_note(tmp_path, leftover.pid)
    assert not list(tmp_path.iterdir())


def _note(scratch, *, owner, group):
    note = {"owner": owner, "started": 1.0, "group": group}
    (scratch / f"teacher-server-{group}.json").write_text(json.dumps(note))


def _wait_for_name(pid, name):
    deadline = time.monotonic() + 5
    path = f"/proc/{pid}/cmdline"
    while time.monotonic() < deadline:
        with open(path, "rb") as stream:  # noqa: PTH123  (a file of the kernel)
            if name in stream.read():
                return
        time.sleep(0.01)
