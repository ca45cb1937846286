"""Servers that several files of tests use."""

import os
import signal
import subprocess
import sys
import time

import httpx
import pytest

from flows.server.app import place_database
from qcrd_core.teacher.servers.launch import free_port


@pytest.fixture(scope="module")
def prefect_server(_shared_server):
    """A Prefect server for the runs of a file: an embedded one costs each run ten seconds."""
    home, url = _shared_server
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(home))
        patch.setenv("PREFECT_API_URL", url)
        yield url


@pytest.fixture(scope="session")
def _shared_server(tmp_path_factory):
    """Home and API of the server; only the files that ask for it have it in their environment."""
    home, port = tmp_path_factory.mktemp("prefect"), free_port()
    url = f"http://127.0.0.1:{port}/api"
    place_database(home)
    environment = {
        **os.environ,
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)]
    with (home / "server.log").open("wb") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=log, env=environment, start_new_session=True
        )
    try:
        _wait_until_healthy(url)
        yield home, url
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def _wait_until_healthy(url):
    deadline = time.monotonic() + 120
    while not _is_healthy(url):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def _is_healthy(url):
    try:
        return httpx.get(f"{url}/health", timeout=2, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
