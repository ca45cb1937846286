"""The server of one command: real uvicorn and Prefect, in a process that may be killed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from flows.temporary_server import TemporaryServer
from qcrd_core.processes import Server
from tests.support.processes import all_gone

_SCRIPT = """
import json, sys
from pathlib import Path
from flows.temporary_server import TemporaryServer
server = TemporaryServer.start(Path(sys.argv[1]))
from prefect import flow, get_client
@flow
def work():
    pass
with server.used():
    work()
    with get_client(sync_client=True) as client:
        said = {"url": str(client.api_url), "flows": len(client.read_flows())}
    print(json.dumps(said), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def process(tmp_path):
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path / "home")}
    environment.pop("PREFECT_API_URL", None)
    command = [sys.executable, "-c", _SCRIPT, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as started:
        yield started
        started.kill()


def _ready(process):
    """Wait until it has spoken to the server; returns what it found and the server's processes."""
    said = json.loads(process.stdout.readline())
    return said, [child.pid for child in psutil.Process(process.pid).children(recursive=True)]


def test_prefect_speaks_to_it_and_it_ends_with_the_process(process):
    said, servers = _ready(process)
    assert said["url"].startswith("http://127.0.0.1:")
    assert said["flows"] == 1
    assert len(servers) == 2  # the guard and the server
    process.stdin.close()
    assert process.wait(30) == 0  # Prefect would wait a minute for a server that is gone
    assert all_gone(servers)


def test_a_killed_run_leaves_no_server(process):
    _, servers = _ready(process)
    process.kill()
    assert all_gone(servers, 30)


def test_a_server_that_is_named_is_taken(tmp_path, monkeypatch):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.setattr(Server, "__init__", _nothing_may_start)
    named = temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"})
    with named, TemporaryServer.start(tmp_path).used():
        assert PREFECT_API_URL.value() == "http://127.0.0.1:1/api"
    assert not Path(tmp_path, "prefect-server.log").exists()


def _nothing_may_start(*_, **__):
    pytest.fail("a server was started")
