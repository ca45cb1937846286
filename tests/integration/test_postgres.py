"""The processes of docker-compose.yml by hand: the same programs and environment, no containers."""

import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from http import HTTPStatus
from uuid import uuid4

import httpx
import psutil
import pytest

from qcrd_core.teacher.servers.launch import free_port
from tests.support.compose import ROOT, services
from tests.support.distillation import as_changes, command, settings_for, taught_teacher
from tests.support.postgres import PASSWORD, postgres

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(900)]

USER, SECRET = "somebody", "a-long-password"
COMPOSE = services({"POSTGRES_PASSWORD": PASSWORD, "PREFECT_AUTH": f"{USER}:{SECRET}"})
NIGHTLY = "redistill-nightly/redistill-nightly"


@pytest.fixture(scope="module")
def database():
    """Compose's database."""
    with postgres() as started:
        yield started


@pytest.fixture(scope="module")
def server(tmp_path_factory, database):
    """Address of the API of compose's server on compose's database."""
    home, port = tmp_path_factory.mktemp("server"), free_port()
    url = f"http://127.0.0.1:{port}/api"
    program = [*_python("prefect-server"), "--host=127.0.0.1", f"--port={port}"]
    with _running("prefect-server", program, home, database.environment):
        _wait(lambda: _status(f"{url}/health") == HTTPStatus.OK, 180)
        yield url


@pytest.fixture(scope="module")
def api(server):
    """A client that knows the password."""
    with httpx.Client(base_url=server, auth=(USER, SECRET), timeout=60, trust_env=False) as client:
        yield client


def test_all_of_the_api_but_health_asks_for_the_password(server, api):
    described = api.get("/openapi.json").json()["paths"]
    routes = [
        (method.upper(), re.sub(r"{\w+}", str(uuid4()), path))
        for path, methods in described.items()
        for method in methods
    ]

    with httpx.Client(base_url=server, trust_env=False, timeout=60) as stranger:
        answers = {
            (method, path): stranger.request(method, path).status_code for method, path in routes
        }

    opened = {path for (_, path), status in answers.items() if status != HTTPStatus.UNAUTHORIZED}
    assert len(answers) > 100
    assert opened == {"/health", "/ready"}  # probes


def test_server_answers_only_to_its_own_names_and_pages(server):
    page = "https://attacker.example"
    with httpx.Client(base_url=server, auth=(USER, SECRET), trust_env=False, timeout=60) as client:
        named = client.get("/version", headers={"Host": "prefect-server:4200"})
        foreign = client.get("/version", headers={"Host": "attacker.example"})
        read = client.get("/version", headers={"Origin": page})

    assert (named.status_code, foreign.status_code) == (HTTPStatus.OK, HTTPStatus.BAD_REQUEST)
    assert "access-control-allow-origin" not in read.headers


def test_server_is_not_ready_while_its_database_is_down(server, database):
    database.stop("immediate")
    down = _status(f"{server}/ready")
    database.start()

    assert down == HTTPStatus.SERVICE_UNAVAILABLE
    _wait(lambda: _status(f"{server}/ready") == HTTPStatus.OK, 60)


def test_cron_of_every_minute_starts_a_night_that_completes(server, api, tmp_path):
    home = tmp_path / "worker"
    at_server = {"PREFECT_API_URL": server, "PREFECT_WORKER_WEBSERVER_PORT": str(free_port())}
    deployed = subprocess.run(
        command(*COMPOSE["deploy"]["command"][1:]),
        env=_environment("deploy", home, at_server),
        capture_output=True,
        text=True,
        check=False,
    )
    assert deployed.returncode == 0, deployed.stderr
    here = {**at_server, "PREFECT_WORKER_QUERY_SECONDS": "1"}
    with taught_teacher() as engine, _running("worker", _python("worker"), home, here):
        config = settings_for(tmp_path, engine, training={"num_rounds": 1})
        _schedule_every_minute(api, {"changes": as_changes(config)})
        _wait(lambda: _ended(api), 400)

    (run, *_) = _ended(api)
    assert run["state_type"] == "COMPLETED", run["state"]["message"]
    assert "promoted. There was no champion before." in run["state"]["message"]


def _schedule_every_minute(api, parameters):
    deployment = api.get(f"/deployments/name/{NIGHTLY}").json()
    (schedule,) = deployment["schedules"]
    every_minute = {"cron": "* * * * *", "timezone": "UTC"}
    api.patch(
        f"/deployments/{deployment['id']}/schedules/{schedule['id']}",
        json={"active": True, "schedule": every_minute, "parameters": parameters},
    ).raise_for_status()


def _ended(api):
    """Scheduled runs that ended, the first one first."""
    states = {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED"]}}
    wanted = {"flow_runs": {"state": states}, "sort": "END_TIME_DESC"}
    runs = api.post("/flow_runs/filter", json=wanted).raise_for_status().json()
    return [run for run in reversed(runs) if run["auto_scheduled"]]


def _python(service):
    """A service's command, by this interpreter."""
    program, *arguments = COMPOSE[service]["command"]
    assert program == "python"
    return [sys.executable, *arguments]


def _environment(service, home, here):
    """A service's environment as compose sets it, with the places of this machine."""
    environment = COMPOSE[service]["environment"].items()
    given = {name: str(value) for name, value in environment if value is not None}
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, **given, **here, "PREFECT_HOME": str(home), "PYTHONPATH": paths}


@contextmanager
def _running(service, program, home, here):
    """Run a service of compose; its output is in its home."""
    home.mkdir(exist_ok=True)
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            program, stdout=log, stderr=log, cwd=ROOT, env=_environment(service, home, here)
        )
    try:
        yield
    finally:
        family = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        process.wait(60)
        _, late = psutil.wait_procs(family, 30)
        for one in late:
            one.kill()


def _status(url):
    try:
        return httpx.get(url, timeout=10, trust_env=False).status_code
    except httpx.HTTPError:
        return None


def _wait(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.5)
