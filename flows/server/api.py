"""The few requests to a Prefect server that `qcrd up`, `down` and `status` make.

Importing Prefect's own client takes seconds on a small machine; these are plain REST.
"""

import os
import time
from typing import Any

import httpx

from qcrd_core.errors import LaunchError

Json = dict[str, Any]

_AUTOMATION = "Crash runs that gave no sign of life"
_WEBHOOK = "qcrd-notify"
# As JSON with all that must be escaped; what is absent is left out.
_TEXT = (
    '{"text": {{ [flow_run.name, flow_run.state.name, flow_run.state.message, flow_run|ui_url]'
    '|select|join(" | ")|tojson }}}'
)
_HEARTBEAT = "prefect.flow-run.heartbeat"
_BUSY_ATTEMPTS = 20
_BUSY_PAUSE_SECONDS = 1.0


class PrefectApi:
    """A server, by its address."""

    def __init__(self, url: str) -> None:
        """Name it; asks nothing.

        Args:
            url: Address of its API.
        """
        user, _, password = os.environ.get("PREFECT_API_AUTH_STRING", "").partition(":")
        # A proxy of the environment has no business between two programs of this machine.
        self._client = httpx.Client(
            base_url=url, timeout=30, trust_env=False, auth=(user, password) if user else None
        )

    def is_healthy(self) -> bool:
        """Whether it answers."""
        try:
            return self._client.get("/health", timeout=2).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def create_pool(self, name: str, description: str) -> None:
        """Create a work pool of processes, unless it is there."""
        if self._exists(f"/work_pools/{name}"):
            return
        pool = {"name": name, "type": "process", "description": description}
        self._ask("POST", "/work_pools/", pool)

    def create_queue(self, pool: str, name: str, *, limit: int) -> None:
        """Create a queue that runs so many at once, unless it is there: its limit is the user's."""
        if self._exists(f"/work_pools/{pool}/queues/{name}"):
            return
        queue = {"name": name, "concurrency_limit": limit}
        self._ask("POST", f"/work_pools/{pool}/queues", queue)

    def create_zombie_automation(self, seconds: int) -> None:
        """Let the server crash runs whose process vanished, unless the automation is there.

        Args:
            seconds: How long a run may be silent.
        """
        if self._has_automation(_AUTOMATION):
            return
        ends = [f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled")]
        trigger = {
            "type": "event",
            "posture": "Proactive",
            "match": {"prefect.resource.id": "prefect.flow-run.*"},
            "for_each": ["prefect.resource.id"],
            "after": [_HEARTBEAT],
            "expect": [_HEARTBEAT, *ends, "prefect.flow-run.Crashed"],
            "threshold": 1,
            "within": seconds,
        }
        action = {
            "type": "change-flow-run-state",
            "state": "CRASHED",
            "message": f"No sign of life for {seconds} s. Start it again: it continues.",
        }
        automation = {
            "name": _AUTOMATION,
            "description": "A killed worker cannot say that its run ended. Made by `qcrd up`.",
            "trigger": trigger,
            "actions": [action],
        }
        self._ask("POST", "/automations/", automation)

    def notify(self, url: str) -> None:
        """Post to an address when a run fails or crashes, and when a night is over.

        One address at a time: a new one replaces it.

        Args:
            url: A webhook that takes `{"text": ...}` (Slack, Mattermost, Rocket.Chat, one's own).
        """
        path = "/block_types/slug/webhook"
        kind = self._ask("GET", path)["id"]
        (schema, *_) = self._ask(
            "POST", "/block_schemas/filter", {"block_schemas": {"block_type_id": {"any_": [kind]}}}
        )
        headers = {"Content-Type": "application/json"}
        content = {"data": {"method": "POST", "url": url, "headers": headers}}
        document = f"{path}/block_documents/name/{_WEBHOOK}"
        if self._exists(document):
            block = self._ask("GET", document)["id"]
            self._ask("PATCH", f"/block_documents/{block}", content)
        else:
            new = {
                **content,
                "name": _WEBHOOK,
                "block_type_id": kind,
                "block_schema_id": schema["id"],
            }
            block = self._ask("POST", "/block_documents/", new)["id"]
        for automation in _notifications(block):
            if not self._has_automation(automation["name"]):
                self._ask("POST", "/automations/", automation)

    def deployments(self) -> list[Json]:
        """All deployments, by name."""
        found: list[Json] = self._ask("POST", "/deployments/filter", {"sort": "NAME_ASC"})
        return found

    def runs(self, pool: str, states: list[str], *, limit: int = 200) -> list[Json]:
        """Runs of a pool in any of the states, the next first.

        Args:
            pool: The work pool.
            states: State types, for example RUNNING.
            limit: Most runs, at most 200.

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
        """Mark a run as Crashed, whatever its state."""
        state = {"type": "CRASHED", "name": "Crashed", "message": message}
        self._ask("POST", f"/flow_runs/{run_id}/set_state", {"state": state, "force": True})

    def _has_automation(self, name: str) -> bool:
        named = {"automations": {"name": {"any_": [name]}}}
        return bool(self._ask("POST", "/automations/filter", named))

    def _exists(self, path: str) -> bool:
        return self._request("GET", path).status_code == httpx.codes.OK

    def _request(self, method: str, path: str, content: Json | None = None) -> httpx.Response:
        """Ask, and again where the server is busy: while another writes, SQLite lets nobody else.

        Prefect's own client asks again likewise.
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
            said = error.response.text[:300]
            msg = (
                f"{error.request.url} must take what qcrd asks; got {said}. Do the versions agree?"
            )
            raise LaunchError(msg) from error
        except httpx.HTTPError as error:
            msg = f"The Prefect server must answer; got {error!r}. Look at `qcrd status`."
            raise LaunchError(msg) from error
        return answer.json() if answer.content else None


def _notifications(block: str) -> list[Json]:
    """Automations that post to a webhook block."""
    wrong = {"expect": ["prefect.flow-run.Failed", "prefect.flow-run.Crashed"]}
    night = {
        "expect": ["prefect.flow-run.Completed"],
        "match_related": {
            "prefect.resource.role": "deployment",
            "prefect.resource.name": "redistill-nightly",
        },
    }
    trigger = {
        "type": "event",
        "posture": "Reactive",
        "match": {"prefect.resource.id": "prefect.flow-run.*"},
        "for_each": ["prefect.resource.id"],
        "threshold": 1,
        "within": 0,
    }
    action = {"type": "call-webhook", "block_document_id": block, "payload": _TEXT}
    return [
        {
            "name": name,
            "description": f"Posts to the block {_WEBHOOK}. Made by `qcrd up --notify`.",
            "trigger": {**trigger, **expected},
            "actions": [action],
        }
        for name, expected in (
            ("Tell of runs that went wrong", wrong),
            ("Tell what a night came to", night),
        )
    ]
