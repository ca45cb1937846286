"""The few requests to a Prefect server that `qcrd up`, `down` and `status` make.

They are plain REST, because importing Prefect's client takes seconds on a small machine.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from qcrd_core.errors import LaunchError
from qcrd_core.runtime.processes import tail

Json = dict[str, Any]

# The first start creates the database: 25 s on two idle cores, much longer on a slow disk.
_START_SECONDS = 180.0
_POLL_SECONDS = 0.1
_BUSY_ATTEMPTS = 20
_BUSY_PAUSE_SECONDS = 1.0


class PrefectApi:
    """A client of one Prefect server."""

    def __init__(self, url: str, password: str | None) -> None:
        """Prepare a client; sends nothing yet.

        Args:
            url: Address of the server's API.
            password: `user:password` if the server asks for one.
        """
        user, _, password = (password or "").partition(":")
        # Ignore proxies of the environment: both programs run on this machine.
        self._client = httpx.Client(
            base_url=url, timeout=30, trust_env=False, auth=(user, password) if user else None
        )

    def is_healthy(self) -> bool:
        """Whether the server answers."""
        try:
            return self._client.get("/health", timeout=2).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def asks_for_password(self) -> bool:
        """Whether a request without a password is refused."""
        answer = self._client.get("/version", auth=None)
        return answer.status_code == httpx.codes.UNAUTHORIZED

    def wait(self, is_alive: Callable[[], bool], log: Path) -> None:
        """Wait until the server answers.

        Args:
            is_alive: Whether its process runs.
            log: Log file of the process.

        Raises:
            LaunchError: If the server exits, or does not answer in time.
        """
        deadline = time.monotonic() + _START_SECONDS
        while not self.is_healthy():
            if not is_alive() or time.monotonic() > deadline:
                what = f"The Prefect server does not answer at {self._client.base_url}"
                msg = f"{what}. Last lines of {log}:\n{tail(log)}"
                raise LaunchError(msg)
            time.sleep(_POLL_SECONDS)

    def create_pool(self, name: str, description: str) -> None:
        """Create a work pool of processes if it does not exist."""
        if self._exists(f"/work_pools/{name}"):
            return
        pool = {"name": name, "type": "process", "description": description}
        self._ask("POST", "/work_pools/", pool)

    def create_queue(self, pool: str, name: str, *, limit: int) -> None:
        """Create a queue if it does not exist. An existing queue keeps the limit its user chose.

        Args:
            pool: The work pool.
            name: Name of the queue.
            limit: Runs at once.
        """
        if self._exists(f"/work_pools/{pool}/queues/{name}"):
            return
        queue = {"name": name, "concurrency_limit": limit}
        self._ask("POST", f"/work_pools/{pool}/queues", queue)

    def has_automation(self, name: str) -> bool:
        """Whether an automation of this name exists."""
        named = {"automations": {"name": {"any_": [name]}}}
        return bool(self._ask("POST", "/automations/filter", named))

    def deployments(self) -> list[Json]:
        """All deployments, by name."""
        found: list[Json] = self._ask("POST", "/deployments/filter", {"sort": "NAME_ASC"})
        return found

    def runs(self, pool: str, states: list[str], *, limit: int = 200) -> list[Json]:
        """Runs of a pool in any of the given states, by scheduled start.

        Args:
            pool: The work pool.
            states: State types, for example RUNNING.
            limit: How many runs to return, at most 200.

        Returns:
            Runs as the API describes them.
        """
        wanted = {
            "flow_runs": {"state": {"type": {"any_": states}}},
            "work_pools": {"name": {"any_": [pool]}},
            "sort": "NEXT_SCHEDULED_START_TIME_ASC",
            "limit": limit,
        }
        found: list[Json] = self._ask("POST", "/flow_runs/filter", wanted)
        return found

    def crash(self, run_id: str, message: str) -> None:
        """Mark a run as Crashed. Prefect ignores this for a run that has ended."""
        state = {"type": "CRASHED", "name": "Crashed", "message": message}
        self._ask("POST", f"/flow_runs/{run_id}/set_state", {"state": state})

    def _exists(self, path: str) -> bool:
        return self._request("GET", path).status_code == httpx.codes.OK

    def _request(self, method: str, path: str, content: Json | None = None) -> httpx.Response:
        """Send a request, and again while the server is busy: SQLite allows one writer at a time.

        Prefect's own client retries in the same way.
        """
        for _ in range(_BUSY_ATTEMPTS - 1):
            answer = self._client.request(method, path, json=content)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                return answer
            time.sleep(_BUSY_PAUSE_SECONDS)
        return self._client.request(method, path, json=content)

    def _ask(self, method: str, path: str, content: Json | None = None) -> Any:
        try:
            answer = self._request(method, path, content)
            answer.raise_for_status()
        except httpx.HTTPStatusError as error:
            answered = f"{error.response.status_code} {error.response.text[:300]}"
            msg = (
                f"The Prefect server rejected {error.request.url}: {answered}. Check that its "
                "version is the one installed here."
            )
            raise LaunchError(msg) from error
        except httpx.HTTPError as error:
            msg = f"The Prefect server does not answer: {error!r}. Look at `qcrd status`."
            raise LaunchError(msg) from error
        return answer.json() if answer.content else None
