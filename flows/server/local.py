"""A Prefect server, worker and deployments on this machine, for `qcrd up`, `down` and `status`.

Server and worker outlive the command. Their process notes, their logs and the SQLite database are
in one folder, the home: PREFECT_HOME, or `.qcrd/scratch/prefect` in the clone. The commands use
REST, so that they need not import Prefect.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import yaml

from flows.server.api import Json, PrefectApi
from flows.server.login import login_link, read_password
from flows.server.prefect_worker import POOL
from qcrd_core.errors import ConfigError, LaunchError
from qcrd_core.runtime.daemons import Daemon
from qcrd_core.runtime.lock import lock

ROOT = Path(__file__).parents[2]
"""The clone. It holds prefect.yaml, and runs start in it."""

TRAINING_QUEUE = "training"
HOST = "127.0.0.1"
_PREFECT_SECONDS = 300.0
# When a training job is asked to stop, it writes its checkpoint first.
_WORKER_GRACE_SECONDS = 90.0
_SERVER_GRACE_SECONDS = 20.0
_HEARTBEAT_SECONDS = 30
_AUTOMATIONS = Path(__file__).with_name("automations.yaml")
_APP = ("--factory", "flows.server.app:create_prefect_app", "--log-level", "warning")
_PREFECT = (sys.executable, "-m", "prefect", "--no-prompt")


@dataclass(frozen=True)
class LocalServer:
    """The server and worker of one home."""

    home: Path

    @classmethod
    def find(cls) -> "LocalServer":
        """Find the home. Starts and writes nothing."""
        named = os.environ.get("PREFECT_HOME")
        home = Path(named).expanduser() if named else ROOT / ".qcrd/scratch/prefect"
        return cls(home.absolute())

    @property
    def server(self) -> Daemon:
        """The Prefect server."""
        return Daemon("server", self.home, marker="prefect")

    @property
    def worker(self) -> Daemon:
        """The worker; the flow runs are below it."""
        return Daemon("worker", self.home, marker="prefect")

    @property
    def url(self) -> str | None:
        """Address of the UI, as noted at the last start."""
        with contextlib.suppress(OSError):
            return self._url_file.read_text(encoding="utf-8").strip() or None
        return None

    def api(self) -> PrefectApi:
        """A client of the running server."""
        assert self.url is not None  # start_server writes the address before it starts a server
        return PrefectApi(f"{self.url}/api", read_password(self.home))

    def login_link(self) -> str:
        """Make a link to the UI that logs one browser in."""
        return login_link(self.home, str(self.url))

    def alone(self) -> AbstractContextManager[bool]:
        """Lock this home, so that only one `up` or `down` works on it at a time."""
        # Logs may quote what a run reads, so they are for this user alone.
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        return lock(self.home / "qcrd.lock")

    def start_server(self, port: int) -> bool:
        """Start the server, unless it runs, and wait until it answers.

        Args:
            port: Port on the loopback.

        Returns:
            Whether it had to be started.

        Raises:
            ConfigError: If the port is in use.
            LaunchError: If the server exits, does not answer in time, or runs without a password.
        """
        if self.server.is_alive():
            self.api().wait(self.server.is_alive, self.server.log)
            if not self.api().asks_for_password():
                msg = (
                    "The running server was started by an earlier version of qcrd and asks for no "
                    "password. Run `qcrd down`, then `qcrd up`."
                )
                raise LaunchError(msg)
            return False
        _check_port(port)
        self.server.stop(0)
        self._url_file.write_text(f"http://{HOST}:{port}\n", encoding="utf-8")
        # The database may be of an earlier version, which let every user read it.
        for file in self.home.glob("prefect.db*"):
            file.chmod(0o600)
        command = [sys.executable, "-m", "uvicorn", *_APP, "--host", HOST, "--port", str(port)]
        self.server.start(command, env=self._server_environment(port), cwd=ROOT, umask=0o077)
        self.api().wait(self.server.is_alive, self.server.log)
        return True

    def start_worker(self) -> bool:
        """Start the worker, unless it runs. Unfinished runs of a dead worker are marked Crashed.

        Returns:
            Whether it had to be started.
        """
        if self.worker.is_alive():
            return False
        self.worker.stop(0)
        self.crash_unfinished("The worker exited. Start the run again to continue it.")
        name = f"qcrd-{socket.gethostname()}"
        command = [sys.executable, "-m", "flows.server.prefect_worker", "--name", name]
        self.worker.start(command, env=self._client_environment(), cwd=ROOT)
        return True

    def deploy(self, notify: str | None) -> None:
        """Apply prefect.yaml; see `deploy`.

        Args:
            notify: Webhook to notify of runs.

        Raises:
            LaunchError: If Prefect rejects the file.
        """
        deploy(f"{self.url}/api", self._client_environment(), notify)

    def stop(self) -> bool:
        """Stop the worker with all its runs, then the server.

        Returns:
            Whether either was running.
        """
        answers = self.server.is_alive() and self.api().is_healthy()
        had_worker = self.worker.stop(_WORKER_GRACE_SECONDS)
        if answers:
            self.crash_unfinished("Stopped by `qcrd down`. Start the run again to continue it.")
        had_server = self.server.stop(_SERVER_GRACE_SECONDS)
        return had_worker or had_server

    def crash_unfinished(self, message: str) -> list[Json]:
        """Mark unfinished runs as Crashed. Call it only while no worker runs.

        When a worker is stopped, Prefect itself leaves its runs in state Running
        (github.com/PrefectHQ/prefect/issues/16746).

        Args:
            message: The message that the UI shows for these runs.

        Returns:
            The runs.
        """
        api = self.api()
        runs = api.runs(POOL, ["RUNNING", "PENDING", "CANCELLING"])
        for run in runs:
            api.crash(run["id"], message)
        return runs

    @property
    def auth_file(self) -> Path:
        """The file with the server's password, for PREFECT_API_AUTH_STRING."""
        return self.home / "auth"

    @property
    def _url_file(self) -> Path:
        return self.home / "url"

    def _server_environment(self, port: int) -> dict[str, str]:
        environment = {
            # Delete runs from the database 90 days after they ended.
            "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
            # Keep leases in files, not in memory. If a restarted server has forgotten a run's place
            # in its queue, it ends the run when the run renews its lease.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
                "prefect.server.concurrency.lease_storage.filesystem"
            ),
            **os.environ,
            **self._quiet(),
            "PREFECT_SERVER_UI_API_URL": f"{self.url}/api",
            # Used for links in notifications.
            "PREFECT_UI_URL": str(self.url),
            "PREFECT_SERVER_API_AUTH_STRING": read_password(self.home),
            # By default a page of any origin may read the answers.
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"{self.url},http://localhost:{port}",
        }
        # A server would pass this address on to the browser.
        environment.pop("PREFECT_API_URL", None)
        return environment

    def _client_environment(self) -> dict[str, str]:
        preset = {
            "PREFECT_LOGGING_EXTRA_LOGGERS": "qcrd_core",
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(_HEARTBEAT_SECONDS),
            # Polling a server on the same machine is cheap; the default is 10 s.
            "PREFECT_WORKER_QUERY_SECONDS": "3",
            # Otherwise a `uv` on the PATH would build an environment for each run.
            "PREFECT_RUNNER_AUTO_INSTALL_DEPENDENCIES": "false",
        }
        forced = {
            **self._quiet(),
            "PREFECT_API_URL": f"{self.url}/api",
            "PREFECT_API_AUTH_STRING": read_password(self.home),
        }
        return {**preset, **os.environ, **forced}

    def _quiet(self) -> dict[str, str]:
        return {
            "PREFECT_HOME": str(self.home),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            # Logs are files, so they need no colours and no line breaks at 80 columns.
            "NO_COLOR": "1",
            "COLUMNS": "200",
        }


def check_clone() -> None:
    """Check that this is a clone: deployments run its files.

    Raises:
        ConfigError: If qcrd is installed without one.
    """
    if not (ROOT / "prefect.yaml").exists():
        msg = (
            "`qcrd up` and `qcrd deploy` need a clone of qcrd, which has prefect.yaml; got "
            f"{ROOT}. Clone the repository and run `make install` there."
        )
        raise ConfigError(msg)


def deploy(url: str, environment: dict[str, str], notify: str | None) -> None:
    """Create the work pool, queue and automations that are missing, and apply prefect.yaml.

    Args:
        url: Address of the server's API.
        environment: Environment of Prefect's commands. It names the same server and holds its
            password.
        notify: Webhook that takes `{"text": ...}` (Slack, Mattermost, Rocket.Chat or similar). It
            is called when a run fails or crashes, and after each nightly decision. It replaces an
            earlier webhook.

    Raises:
        LaunchError: If Prefect rejects the file.
    """
    password = environment.get("PREFECT_API_AUTH_STRING")
    api = PrefectApi(url, password)
    api.create_pool(POOL, "Runs of qcrd.")
    # One run at a time, whatever its deployment, because training takes the whole machine.
    api.create_queue(POOL, TRAINING_QUEUE, limit=1)
    content = _AUTOMATIONS.read_text(encoding="utf-8")
    wanted = yaml.safe_load(content)["crashes"]
    if notify is not None:
        block = _save_webhook(url, password, notify)
        wanted += yaml.safe_load(content.replace("$block", block))["notify"]
    absent = [automation for automation in wanted if not api.has_automation(automation["name"])]
    if absent:
        _prefect(["automation", "create", "--from-json", json.dumps(absent)], environment)
    _prefect(["deploy", "--all", "--prefect-file", str(ROOT / "prefect.yaml")], environment)


def _save_webhook(api_url: str, password: str | None, url: str) -> str:
    from prefect.blocks.webhook import Webhook
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    headers = {"Content-Type": "application/json"}
    with temporary_settings({PREFECT_API_URL: api_url, PREFECT_API_AUTH_STRING: password}):
        return str(Webhook(url=url, headers=headers).save("qcrd-notify", overwrite=True))


def _prefect(arguments: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(
        [*_PREFECT, *arguments],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_PREFECT_SECONDS,
        check=False,
    )
    if done.returncode:
        output = "\n".join("  " + line for line in (done.stdout + done.stderr).splitlines()[-25:])
        msg = f"`prefect {arguments[0]}` failed:\n{output}"
        raise LaunchError(msg)


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            msg = f"--port must be a free port of {HOST}; got {port} ({error}). Choose another."
            raise ConfigError(msg) from error
