"""Child processes: results, errors and events come back, and nothing is left running."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qcrd_core.errors import LaunchError, TrainingError
from qcrd_core.runtime import processes
from qcrd_core.runtime.processes import Server, run_job, tail
from tests.support import jobs
from tests.support.processes import all_gone

ROOT = Path(__file__).parents[3]

_PARENT_OF_SERVER = """
import json, sys, time
from pathlib import Path
from qcrd_core.runtime.processes import Server

log = Path(sys.argv[1])
server = Server([sys.executable, "-c", sys.argv[2]], log=log, env={})
while not log.read_text().endswith("]"):
    time.sleep(0.01)
print(json.dumps([server.pid, *json.loads(log.read_text())]), flush=True)
time.sleep(600)
"""
_PARENT_OF_JOB = """
import json, sys
from pathlib import Path
from qcrd_core.runtime import processes
from tests.support import jobs

processes._ACCELERATOR_DEVICES = ("/dev/null",) if sys.argv[2] == "spawned" else ()
processes._PRELOAD = []
if __name__ == "__main__":
    processes.run_job(
        jobs.ignore,
        {},
        log=Path(sys.argv[1]),
        on_event=lambda event: print(json.dumps(event["pids"]), flush=True),
    )
"""
# A server with a child of its own that does not listen to SIGTERM.
_SERVER_WITH_CHILD = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = os.fork()
if child:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    print([os.getpid(), child], end="", flush=True)
time.sleep(600)
"""


@pytest.fixture(params=["forked", "spawned"])
def _either_start(request, monkeypatch):
    """Jobs as on a CPU machine, and as on one with an accelerator."""
    devices = ("/dev/null",) if request.param == "spawned" else ()
    monkeypatch.setattr(processes, "_ACCELERATOR_DEVICES", devices)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "logs" / "job.log"


@pytest.mark.usefixtures("_either_start")
def test_run_job_returns_the_result_and_forwards_events(log):
    events = []
    result = run_job(jobs.succeed, {"round": 3}, log=log, on_event=events.append).value
    assert result["round"] == 3
    assert events == [{"step": 1}, {"step": 2}]
    assert "written by the job" in log.read_text(encoding="utf-8")


@pytest.mark.usefixtures("_either_start")
def test_run_job_gives_each_job_the_environment_of_its_caller(log, monkeypatch):
    seen = []
    for value in ("first", "second"):
        monkeypatch.setenv("QCRD_TEST_VARIABLE", value)
        seen.append(run_job(jobs.succeed, {}, log=log).value["variable"])
    assert seen == ["first", "second"]


def test_run_job_says_in_a_sentence_that_the_gpu_is_full(log):
    message = (
        r"^The job fill_gpu ran out of GPU memory: Tried to allocate 514\.00 MiB\. "
        r"GPU 0 has .* 80\.44 MiB is free\. Finished stages are kept\. "
        r"Lower training\.micro_batch_size"
    )
    with pytest.raises(TrainingError, match=message) as caught:
        run_job(jobs.fill_gpu, {}, log=log)
    assert len(str(caught.value).splitlines()) == 1
    assert "Traceback" in log.read_text(encoding="utf-8")


def test_run_job_appends_to_the_log(log):
    log.parent.mkdir()
    log.write_text("an earlier job\n", encoding="utf-8")
    run_job(jobs.succeed, {}, log=log)
    assert log.read_text(encoding="utf-8") == "an earlier job\nwritten by the job\n"


def test_run_job_raises_an_error_of_ours_as_itself(log):
    with pytest.raises(TrainingError, match=r"^The loss must stay finite; got nan\.$"):
        run_job(jobs.lose, {}, log=log)


@pytest.mark.parametrize(
    ("job", "message"),
    [
        (jobs.crash, r"job crash failed: KeyError: 'absent'(?s:.*)job\[\"absent\"\]"),
        (jobs.unsendable, r"job unsendable failed: .*(?i:pickle)"),
        (jobs.leave, r"job leave died with exit code 3(?s:.*)leaving early"),
        (jobs.die, r"job die died with exit code -9(?s:.*)  last words"),
    ],
)
def test_run_job_that_fails_otherwise_is_explained_by_its_log(log, job, message):
    with pytest.raises(LaunchError, match=message):
        run_job(job, {}, log=log)


def test_run_job_leaves_no_process_of_its_group(log):
    pids = run_job(jobs.abandon, {}, log=log).value["pids"]
    assert len(pids) == 2
    assert all_gone(pids, seconds=2)


@pytest.mark.usefixtures("_either_start")
def test_run_job_interrupted_lets_the_job_stop_and_ends_its_group(log, tmp_path):
    pids = []
    job = {"stopped": str(tmp_path / "stopped")}
    with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
        run_job(jobs.stay, job, log=log, on_event=_interrupt(pids))
    assert (tmp_path / "stopped").read_text(encoding="utf-8") == "cleanly"
    assert len(pids) == 2
    assert all_gone(pids, seconds=2)


def test_run_job_interrupted_kills_a_job_that_does_not_stop(log):
    pids = []
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
        run_job(jobs.ignore, {}, log=log, on_event=_interrupt(pids), grace_seconds=0.3)
    assert time.monotonic() - start < 10
    assert len(pids) == 1
    assert all_gone(pids, seconds=0)


def _interrupt(pids):
    def on_event(event):
        pids.extend(event["pids"])
        msg = "Ctrl-C"
        raise KeyboardInterrupt(msg)

    return on_event


@pytest.mark.parametrize("start", ["forked", "spawned"])
def test_job_dies_when_its_parent_is_killed(log, tmp_path, start):
    script = tmp_path / "parent.py"
    script.write_text(_PARENT_OF_JOB, encoding="utf-8")
    pids = _kill_parent([str(script), str(log), start])
    assert all_gone(pids)


def test_server_dies_with_its_group_when_its_parent_is_killed(log):
    pids = _kill_parent(["-c", _PARENT_OF_SERVER, str(log), _SERVER_WITH_CHILD])
    assert len(pids) == 3
    assert all_gone(pids)


def _kill_parent(arguments):
    """Start a parent that reports its children's pids, kill it, and return them."""
    with subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, cwd=ROOT, env={"PYTHONPATH": "."}
    ) as parent:
        pids = json.loads(parent.stdout.readline())
        parent.kill()
    return pids


def test_server_writes_its_log_with_the_variables_it_was_given(log):
    code = "import os; print(os.environ['QCRD_ONE'], bool(os.environ['PATH']))"
    server = Server([sys.executable, "-c", code], log=log, env={"QCRD_ONE": "one"})
    _wait_until(lambda: not server.is_alive())
    server.stop()
    server.stop()
    assert log.read_text(encoding="utf-8") == "one True\n"


def test_server_stop_ends_a_group_that_does_not_listen(log, caplog):
    deaf = _SERVER_WITH_CHILD.replace("SIG_DFL", "SIG_IGN")
    server = Server([sys.executable, "-c", deaf], log=log, env={})
    _wait_until(lambda: log.read_text(encoding="utf-8").endswith("]"))
    assert server.is_alive()
    server.stop(grace_seconds=0.3)
    assert not server.is_alive()
    assert all_gone([server.pid, *json.loads(log.read_text(encoding="utf-8"))], seconds=2)
    assert "did not stop within" in caplog.text


def test_server_of_absent_program_is_refused(log):
    with pytest.raises(LaunchError, match=r"/none/vllm does not exist, so it cannot be started"):
        Server(["/none/vllm", "serve"], log=log, env={})


def _wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_tail_gives_the_last_lines_whatever_their_bytes(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"first\nsecond\nthird \xff\n")
    assert tail(log, lines=2) == "  second\n  third \N{REPLACEMENT CHARACTER}"
    assert tail(tmp_path / "absent") == ""
