"""The managed server's life, with a stub in vLLM's place: start, death, restart, stop."""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from qcrd_core.errors import LaunchError, SamplingError
from qcrd_core.teacher.servers.managed import teacher_endpoints
from tests.support import stub_vllm
from tests.support.sampling import Sampling, make_config, numbered_questions


@pytest.fixture
def sampling(tmp_path, monkeypatch):
    """Sampling 6 questions x 2 from a managed stub; call with its behaviour and settings."""
    program = tmp_path / "vllm-python"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{stub_vllm.__file__}" "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("QCRD_VLLM_PYTHON", str(program))
    monkeypatch.setattr("qcrd_core.teacher.servers.dispatch._FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr("qcrd_core.teacher.servers.managed._POLL_SECONDS", 0.05)

    def make(behaviour, **server):
        monkeypatch.setenv("QCRD_STUB", behaviour)
        config = make_config(tmp_path / "store", None, server=server)
        return Sampling(config, numbered_questions(6))

    return make


def _group(scratch: Path) -> int:
    (note,) = scratch.glob("teacher-server-*.json")
    return json.loads(note.read_text())["group"]


def test_managed_server_serves_and_leaves_nothing(sampling):
    run = sampling("fine")
    scratch = run.config.run.scratch
    with teacher_endpoints(run.config.teacher, run.prepared, scratch, scratch / "log") as pool:
        group = _group(scratch)
        table = run.run_on(pool)
    assert table["status"].to_list() == ["ok"] * 12
    assert not list(scratch.glob("teacher-server-*"))
    with pytest.raises(ProcessLookupError, match="No such process"):
        os.killpg(group, 0)


def test_dead_server_is_started_again_and_no_sample_is_lost(sampling, monkeypatch):
    # Each life ends at its 5th request: 12 samples need at least three.
    monkeypatch.setattr("qcrd_core.teacher.servers.managed._MAX_RESTARTS", 12)
    run = sampling("die-after:5")
    assert run.run().height == 12


def test_server_that_keeps_dying_is_given_up(sampling):
    run = sampling("die-after:1")
    with pytest.raises(SamplingError, match=r"vLLM died 4 times in this run"):
        run.run()
    assert run.table().is_empty()
    assert not list(run.config.run.scratch.glob("teacher-server-*"))


def test_server_that_is_never_ready_is_given_up(sampling, monkeypatch):
    monkeypatch.setattr("qcrd_core.teacher.servers.managed._START_SECONDS", 0.3)
    run = sampling("silent")
    with pytest.raises(LaunchError, match=r"was not ready after 0.3 s"):
        run.run()


def test_bring_back_by_two_threads_restarts_once(sampling):
    run = sampling("fine")
    scratch = run.config.run.scratch
    with teacher_endpoints(run.config.teacher, run.prepared, scratch, scratch / "log") as pool:
        before, (endpoint,) = _group(scratch), pool.endpoints
        os.killpg(before, 9)
        while not pool.is_dead():
            pass
        with ThreadPoolExecutor() as threads:
            found = set(threads.map(pool.bring_back, [endpoint] * 2))
        assert found == set(pool.endpoints)
        assert found != {endpoint}
        assert _group(scratch) != before


def test_closed_pool_is_not_brought_back(sampling):
    run = sampling("fine")
    scratch = run.config.run.scratch
    with teacher_endpoints(run.config.teacher, run.prepared, scratch, scratch / "log") as pool:
        pass
    with pytest.raises(SamplingError, match="The teacher was stopped"):
        pool.bring_back(pool.endpoints[0])
