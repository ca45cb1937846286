"""The commands `qcrd up`, `down`, `status` and `deploy`: Prefect on one machine, or elsewhere.

    qcrd up        server, worker and the deployments of prefect.yaml; says where the UI is
    qcrd deploy    the deployments alone, to a server elsewhere
    qcrd status    what runs, and what is scheduled next
    qcrd down      ends both, and every run with them

For more than one machine, and for PostgreSQL, see docker-compose.yml.
"""

import os
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

from qcrd_core.errors import ConfigError, LaunchError

_SHOWN_RUNS = 10


def up(*, port: int = 4200, notify: str | None = None) -> None:
    """Start Prefect's server and a worker here, and deploy what prefect.yaml names.

    Called again it starts what is missing and applies prefect.yaml anew. Stop it with `qcrd down`.

    Args:
        port: Port of the server on the loopback. A server that runs keeps its own.
        notify: Webhook that is told of runs that went wrong and of what a night came to, as
            `{"text": ...}`. It is kept until another one is given.
    """
    from flows.server.local import LocalServer

    local = LocalServer.find()
    with local.alone():
        _say("server", "starting" if not local.server.is_alive() else "runs already")
        local.start_server(port)
        _say("deployments", "reading prefect.yaml")
        local.deploy(notify)
        if notify is not None:
            _say("notify", "runs that went wrong, and what a night came to")
        _say("worker", "started" if local.start_worker() else "runs already")
    names = [item["name"] for item in local.api().deployments()]
    _say("", ", ".join(names))
    _say("home", f"{local.home} (database and logs)")
    print(f"\nThe UI: {local.url}/deployments\n")
    print("Start a run there, or here:")
    prefect = Path(sys.executable).with_name("prefect")
    print(
        f"PREFECT_API_URL={local.url}/api {shlex.quote(str(prefect))} deployment run "
        "distill/distill-quickstart --watch"
    )


def deploy(*, notify: str | None = None) -> None:
    """Deploy what prefect.yaml names to the server that PREFECT_API_URL names.

    Makes the work pool, the queue that trains one run at a time, and the automation that crashes
    runs without a sign of life, where they are absent.

    Args:
        notify: As with `qcrd up`.
    """
    from flows.server.api import PrefectApi
    from flows.server.local import deploy as deploy_to

    url = os.environ.get("PREFECT_API_URL")
    if url is None:
        msg = (
            "PREFECT_API_URL must name a server's API, for example http://server:4200/api; it is "
            "not set. For a server on this machine use `qcrd up`."
        )
        raise ConfigError(msg)
    deploy_to(url, dict(os.environ), notify)
    print(", ".join(item["name"] for item in PrefectApi(url).deployments()))


def down() -> None:
    """Stop the worker with all its runs, and the server. The database is kept."""
    from flows.server.local import LocalServer

    local = LocalServer.find()
    with local.alone():
        stopped = local.stop()
    print("Stopped. What runs had finished is kept." if stopped else "Nothing was running.")
    print("\nqcrd up")


def status() -> None:
    """Say whether server and worker run, which runs there are, and what comes next."""
    from flows.server.local import POOL, LocalServer

    local = LocalServer.find()
    server, worker = local.server.pid, local.worker.pid
    _say("server", f"process {server}, {local.url}" if server else "not running")
    _say("worker", f"process {worker}" if worker else "not running")
    _say("home", str(local.home))
    if server is None:
        print("\nqcrd up")
        return
    api = local.api()
    if not api.is_healthy():
        msg = f"{local.url} must answer; it does not. The end of its log:\n{local.server.tail()}"
        raise LaunchError(msg)
    deployments = {item["id"]: item["name"] for item in api.deployments()}
    _say("deployments", ", ".join(deployments.values()) or "none")
    for title, states in (
        ("runs", ["RUNNING", "PENDING", "CANCELLING"]),
        ("scheduled", ["SCHEDULED"]),
    ):
        found = api.runs(POOL, states, limit=_SHOWN_RUNS)
        _say_each(title, (_describe(run, deployments) for run in found))
    print(f"\n{local.url}/runs" if worker else "\nqcrd up")


def _describe(run: dict[str, object], deployments: dict[object, str]) -> str:
    when = str(run["start_time"] or run["expected_start_time"])[:16].replace("T", " ")
    name = deployments.get(run["deployment_id"], "no deployment")
    return f"{run['state_name']:<10} {when} UTC  {name} ({run['name']})"


def _say_each(title: str, lines: Iterable[str]) -> None:
    for number, line in enumerate(list(lines) or ["none"]):
        _say("" if number else title, line)


def _say(title: str, text: str) -> None:
    print(f"  {title:<12} {text}", flush=True)
