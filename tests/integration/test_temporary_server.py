"""The server of one command: real uvicorn and Prefect, in a process that may be killed."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flows.server.temporary import TemporaryServer
from qcrd_core.runtime.processes import Server
from tests.support.processes import all_gone

_SCRIPT = """
import json, sys
from flows.server.temporary import TemporaryServer
server = TemporaryServer.start()
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
    command = [sys.executable, "-c", _SCRIPT]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=_environment(tmp_path), **pipes) as started:
        yield started
        started.kill()


def _environment(folder):
    """A new home; a killed process leaves its server's log where temporary files are."""
    environment = {**os.environ, "PREFECT_HOME": str(folder / "home"), "TMPDIR": str(folder)}
    environment.pop("PREFECT_API_URL", None)
    return environment


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


def test_a_server_that_the_environment_names_is_taken(monkeypatch):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    named = "http://127.0.0.1:1/api"
    monkeypatch.setenv("PREFECT_API_URL", named)
    monkeypatch.setattr(Server, "__init__", _nothing_may_start)
    with temporary_settings({PREFECT_API_URL: named}), TemporaryServer.start().used():
        assert PREFECT_API_URL.value() == named


def _nothing_may_start(*_, **__):
    pytest.fail("a server was started")


_WITH_PROFILE = """
from flows.server.temporary import TemporaryServer
server = TemporaryServer.start()
from prefect.settings import PREFECT_API_URL
with server.used():
    while server._server.is_alive():
        pass
    print(PREFECT_API_URL.value(), flush=True)
"""


def test_a_server_that_a_profile_names_is_taken_and_ours_ends(tmp_path):
    named = "http://127.0.0.1:1/api"
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "profiles.toml").write_text(
        f'active = "a"\n[profiles.a]\nPREFECT_API_URL = "{named}"\n'
    )
    done = _python(_WITH_PROFILE, tmp_path)
    assert done.stdout.strip() == named
    assert not (tmp_path / "home" / "prefect.db").exists()


_NOT_USED = """
import time
from flows.server.temporary import TemporaryServer
server = TemporaryServer.start()
time.sleep(0.3)
print(server._server.log)
"""


def test_a_server_that_nobody_used_ends_at_once_and_leaves_nothing(tmp_path):
    start = time.monotonic()
    done = _python(_NOT_USED, tmp_path)
    # Its start alone takes three seconds; that it is waited for would take as much again.
    assert time.monotonic() - start < 15
    assert done.returncode == 0
    assert Path(done.stdout.strip()).parent == tmp_path
    assert not any(tmp_path.iterdir())


def _python(script, folder):
    return subprocess.run(
        [sys.executable, "-c", script],
        env=_environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )
