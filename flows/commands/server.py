"""The commands `qcrd up`, `down`, `status` and `deploy`: Prefect on this machine or elsewhere.

    qcrd up        starts server and worker, applies prefect.yaml, prints the address of the UI
    qcrd deploy    applies prefect.yaml to a server elsewhere
    qcrd status    shows what runs, and what is scheduled next
    qcrd down      stops the worker with all its runs, and the server

For more than one machine, and for PostgreSQL, see docker-compose.yml.
"""

import os
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

from flows.commands.options import Port, WebAddress
from qcrd_core.errors import ConfigError, LaunchError

_SHOWN_RUNS = 10


def up(*, port: Port = 4200, notify: WebAddress = None) -> None:
    """Start a Prefect server and a worker on this machine, and apply prefect.yaml.

    Run it again to start what is missing and to apply prefect.yaml again. Stop both with
    `qcrd down`.

    Args:
        port: Port of the server, reachable only from this machine. A server that already runs
            keeps its port.
        notify: Webhook that receives `{"text": ...}` when a run fails or crashes, and after each
            nightly decision. It stays in use until you give another one.
    """
    from flows.server.local import LocalServer, check_clone

    check_clone()
    local = LocalServer.find()
    with local.alone():
        _say("server", "already running" if local.server.is_alive() else "starting")
        local.start_server(port)
        _say("deployments", "reading prefect.yaml")
        local.deploy(notify)
        if notify is not None:
            _say("notify", "after failed or crashed runs, and after each nightly decision")
        _say("worker", "started" if local.start_worker() else "already running")
    names = [item["name"] for item in local.api().deployments()]
    _say("", ", ".join(names))
    _say("home", f"{local.home} (database and logs)")
    print(f"\nThe UI: {local.url}/deployments")
    print(f"Log a browser in (once, within ten minutes): {local.login_link()}\n")
    print("Start a run in the UI, or on the command line:")
    prefect = shlex.quote(str(Path(sys.executable).with_name("prefect")))
    password = f"PREFECT_API_AUTH_STRING=$(cat {shlex.quote(str(local.auth_file))})"
    print(
        f"PREFECT_API_URL={local.url}/api {password} {prefect} deployment run "
        "distill-file/distill-file --watch"
    )


def deploy(*, notify: WebAddress = None) -> None:
    """Apply prefect.yaml to the Prefect server named by PREFECT_API_URL.

    If they are missing, this also creates the work pool, the queue that trains one run at a time,
    and the automation that marks a run as Crashed when its heartbeat stops.

    Args:
        notify: Webhook that receives `{"text": ...}` when a run fails or crashes, and after each
            nightly decision. It stays in use until you give another one.
    """
    from flows.server.api import PrefectApi
    from flows.server.local import check_clone
    from flows.server.local import deploy as deploy_to

    check_clone()
    url = os.environ.get("PREFECT_API_URL")
    if url is None:
        msg = (
            "PREFECT_API_URL must name a Prefect server's API, for example "
            "http://server:4200/api; it is not set. For a server on this machine run `qcrd up`."
        )
        raise ConfigError(msg)
    deploy_to(url, dict(os.environ), notify)
    api = PrefectApi(url, os.environ.get("PREFECT_API_AUTH_STRING"))
    print(", ".join(item["name"] for item in api.deployments()))


def down() -> None:
    """Stop the worker with all its runs, then the server. The database is kept."""
    from flows.server.local import LocalServer

    local = LocalServer.find()
    with local.alone():
        stopped = local.stop()
    print("Stopped. Finished work of all runs is kept." if stopped else "Nothing was running.")
    print("\nqcrd up")


def status() -> None:
    """Show whether server and worker run, the current runs, and what is scheduled next."""
    from flows.server.local import LocalServer
    from flows.server.prefect_worker import POOL

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
        msg = f"The Prefect server does not answer at {local.url}. Last lines of its log:\n"
        msg += local.server.tail()
        raise LaunchError(msg)
    deployments = {item["id"]: item["name"] for item in api.deployments()}
    _say("deployments", ", ".join(deployments.values()) or "none")
    for title, states in (
        ("runs", ["RUNNING", "PENDING", "CANCELLING"]),
        ("scheduled", ["SCHEDULED"]),
    ):
        found = api.runs(POOL, states, limit=_SHOWN_RUNS)
        _say_each(title, (_describe(run, deployments) for run in found))
    print(f"\n{local.login_link()}" if worker else "\nqcrd up")


def _describe(run: dict[str, object], deployments: dict[object, str]) -> str:
    when = str(run["start_time"] or run["expected_start_time"])[:16].replace("T", " ")
    name = deployments.get(run["deployment_id"], "no deployment")
    return f"{run['state_name']:<10} {when} UTC  {name} ({run['name']})"


def _say_each(title: str, lines: Iterable[str]) -> None:
    for number, line in enumerate(list(lines) or ["none"]):
        _say("" if number else title, line)


def _say(title: str, text: str) -> None:
    print(f"  {title:<12} {text}", flush=True)
