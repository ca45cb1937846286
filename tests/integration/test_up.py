"""`qcrd up` on a real server and worker, driven over REST as the UI drives it."""

import asyncio
import base64
import json
import re
import sqlite3
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import psutil
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from qcrd_core.teacher.servers.launch import free_port
from tests.support.ask_again import AskAgain
from tests.support.distillation import as_changes, qcrd, settings_for, taught_teacher
from tests.support.processes import all_gone
from tests.support.tiny_llama import make_tiny_llama

pytestmark = pytest.mark.timeout(400)

FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
NIGHTLY = "redistill-nightly/redistill-nightly"
STUB = Path(__file__).parents[1] / "support" / "stub_vllm.py"


class Webhook(ThreadingHTTPServer):
    """Somebody who wants to be told; `texts` is what arrived."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Listener)
        self.texts = []
        self.url = f"http://127.0.0.1:{self.server_port}/hook"


class _Listener(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.headers["Content-Type"] == "application/json"
        self.server.texts.append(body["text"])
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        """Stay silent."""


class Up:
    """A started `qcrd up`."""

    def __init__(self, home, said, webhook):
        self.home, self.said, self.webhook = home, said, webhook
        self.api = httpx.Client(
            transport=AskAgain(),
            base_url=f"{(home / 'url').read_text().strip()}/api",
            auth=tuple((home / "auth").read_text().split(":")),
            timeout=30,
            trust_env=False,
        )

    def pid(self, name):
        return json.loads((self.home / f"{name}.json").read_text())["pid"]

    def deployment(self, name):
        return self.api.get(f"/deployments/name/{name}").json()

    def switch_nightly(self, **changes):
        deployment = self.deployment(NIGHTLY)
        (schedule,) = deployment["schedules"]
        path = f"/deployments/{deployment['id']}/schedules/{schedule['id']}"
        self.api.patch(path, json=changes).raise_for_status()

    def is_nightly_on(self):
        (schedule,) = self.deployment(NIGHTLY)["schedules"]
        return schedule["active"]

    def trigger(self, name, parameters, **more):
        path = f"/deployments/{self.deployment(name)['id']}/create_flow_run"
        body = {"parameters": parameters, **more}
        return self.api.post(path, json=body)

    def state(self, run_id):
        return self.api.get(f"/flow_runs/{run_id}").json()["state"]

    def wait(self, run_id, states):
        _wait(lambda: self.state(run_id)["type"] in states, 90)
        return self.state(run_id)


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    """Server, worker and deployments; the worker's local teacher is a stub of vLLM."""
    home = tmp_path_factory.mktemp("home")
    launcher = home / "vllm-python"
    launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STUB}" "$@"\n')
    launcher.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(home))
        patch.setenv("QCRD_VLLM_PYTHON", str(launcher))
        patch.setenv("QCRD_STUB", "slow")
        patch.setenv("PREFECT_WORKER_QUERY_SECONDS", "1")
        webhook = Webhook()
        thread = threading.Thread(target=webhook.serve_forever, daemon=True)
        thread.start()
        done = qcrd("up", "--port", free_port(), "--notify", webhook.url)
        try:
            assert done.returncode == 0, done.stderr
            started = Up(home, done.stdout, webhook)
            with started.api:
                yield started
        finally:
            qcrd("down")
            webhook.shutdown()
            webhook.server_close()
            thread.join()


def test_up_says_where_the_ui_is_and_deploys_prefect_yaml(up):
    found = {item["name"] for item in up.api.post("/deployments/filter", json={}).json()}

    assert f"The UI: {(up.home / 'url').read_text().strip()}/deployments" in up.said
    assert {"distill", "sample-teacher", "train-rounds", "redistill-nightly"} <= found
    assert {"distill-file", "distill-quickstart", "import-rationales"} <= found
    assert not up.is_nightly_on()
    assert up.said.splitlines()[-1].endswith("deployment run distill-file/distill-file --watch")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Basic " + base64.b64encode(b"qcrd:guess").decode()}, 401),
        ({"Authorization": "right", "Host": "attacker.example"}, 400),
        ({"Authorization": "right", "Host": "127.0.0.1.attacker.example:4200"}, 400),
    ],
    ids=["no-password", "wrong-password", "foreign-host", "host-that-looks-like-ours"],
)
def test_up_refuses_who_has_no_password_or_names_another_host(up, headers, status):
    if headers.get("Authorization") == "right":
        secret = (up.home / "auth").read_bytes()
        headers = {**headers, "Authorization": f"Basic {base64.b64encode(secret).decode()}"}
    runs_before = up.api.post("/flow_runs/count", json={}).json()
    path = f"/deployments/{up.deployment('distill/distill')['id']}/create_flow_run"
    body = {"job_variables": {"command": f"touch {up.home / 'attacked'}"}}

    with httpx.Client(base_url=up.api.base_url, trust_env=False, timeout=30) as stranger:
        answer = stranger.post(path, json=body, headers=headers)

    assert answer.status_code == status
    assert up.api.post("/flow_runs/count", json={}).json() == runs_before


@pytest.mark.parametrize("origin", ["http://127.0.0.1:9999", "https://attacker.example", "null"])
def test_up_lets_no_page_of_another_origin_read_or_write(up, origin):
    own = (up.home / "url").read_text().strip()
    wanted = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x"}
    with httpx.Client(base_url=up.api.base_url, trust_env=False, timeout=30) as browser:
        allowed = browser.options("/flow_runs/filter", headers={"Origin": own, **wanted})
        preflight = browser.options("/flow_runs/filter", headers={"Origin": origin, **wanted})
        # A form may post text to any site without asking first.
        form = {"Origin": origin, "Content-Type": "text/plain"}
        posted = browser.post("/flow_runs/filter", content="{}", headers=form)

    assert allowed.headers["access-control-allow-origin"] == own
    assert "access-control-allow-origin" not in preflight.headers
    assert "access-control-allow-origin" not in posted.headers
    assert (preflight.status_code, posted.status_code) == (400, 401)


@pytest.mark.parametrize("protocols", [[], ["prefect"]])
def test_up_takes_no_events_without_the_password(up, protocols):
    address = f"ws://{up.api.base_url.netloc.decode()}/api/events/in"

    async def attack():
        async with connect(address, subprotocols=protocols or None, proxy=None) as socket:
            await socket.send(json.dumps({"type": "auth", "token": "guess"}))
            await socket.recv()

    with pytest.raises((InvalidStatus, ConnectionClosed)):
        asyncio.run(attack())


def test_up_keeps_its_secrets_from_other_users(up):
    files = [up.home / "auth", *up.home.glob("prefect.db*"), *up.home.glob("logins/*")]
    assert len(files) >= 3
    assert {oct(file.stat().st_mode & 0o077) for file in files} == {"0o0"}
    assert oct((up.home / "logins").stat().st_mode & 0o777) == "0o700"


def test_login_link_gives_the_password_once_and_only_with_its_code(up):
    (link,) = re.findall(r"http://\S+/qcrd/login#\S+", qcrd("status").stdout)
    page, _, code = link.partition("#")
    with httpx.Client(trust_env=False, timeout=30) as browser:
        assert "localStorage" in browser.get(page).text
        guesses = [browser.post(page, content=guess) for guess in ("", "../auth", "x" * 32)]
        first, second = (browser.post(page, content=code) for _ in range(2))

    assert [answer.status_code for answer in guesses] == [403] * 3
    assert first.text == (up.home / "auth").read_text()
    assert second.status_code == 403
    assert "Run `qcrd status` for a new one." in second.text


def test_up_again_keeps_processes_and_the_schedule_as_it_was_switched(up):
    before = up.pid("server"), up.pid("worker")
    up.switch_nightly(active=True)

    again = qcrd("up")

    assert again.returncode == 0, again.stderr
    assert (up.pid("server"), up.pid("worker")) == before
    assert len(up.api.post("/automations/filter", json={}).json()) == 3
    assert up.is_nightly_on()


def test_form_carries_descriptions_bounds_and_the_preset(up):
    deployment = up.deployment("distill/distill-quickstart")
    field = deployment["parameter_openapi_schema"]["definitions"]["TeacherSection"]["properties"][
        "num_samples"
    ]

    assert (field["description"], field["minimum"]) == ("K, rationales per question.", 1)
    assert deployment["parameters"]["config"]["data"]["dataset"] == "word_problems"


@pytest.mark.parametrize(
    ("section", "setting", "value", "sentence"),
    [
        ("teacher", "num_samples", 0, "'config.teacher.num_samples'. Failure reason: 0 is less"),
        ("teacher", "num_smaples", 4, "'num_smaples' was unexpected"),
        ("voting", "tie", "coin", "'coin' is not one of ['abstain', 'first', 'logprob', 'parts']"),
    ],
    ids=["bound", "name", "choice"],
)
def test_wrong_value_is_refused_before_a_run_exists(up, section, setting, value, sentence):
    config = up.deployment("distill/distill-quickstart")["parameters"]["config"]
    changed = {**config, section: {**config.get(section, {}), setting: value}}

    answer = up.trigger("distill/distill-quickstart", {"config": changed})

    assert answer.status_code == 409
    assert sentence in answer.json()["detail"]
    assert up.api.post("/flow_runs/filter", json=_of("distill-quickstart")).json() == []


def test_import_brings_rationales_in_and_shows_what_to_set(up, tmp_path):
    path = tmp_path / "said.jsonl"
    rows = [{"instruction": f"What is {i} + 2?", "generation": f"So {i + 2}."} for i in range(3)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    parameters = {
        "file": str(path),
        "store": str(tmp_path / "store"),
        "dataset": "word_problems",
        "format": "distilabel",
    }

    run = up.trigger("import-rationales/import-rationales", parameters).json()

    state = up.wait(run["id"], FINAL)
    assert state["type"] == "COMPLETED", state["message"]
    assert len(list((tmp_path / "store").rglob("part-*.parquet"))) > 0
    (artifact,) = up.api.post("/artifacts/filter", json={}).json()
    assert "teacher.model = {type: imported" in artifact["description"]


def test_two_triggers_with_one_key_are_one_night_and_somebody_is_told(up, tmp_path):
    with taught_teacher() as engine:
        config = settings_for(tmp_path, engine, training={"num_rounds": 1})
        runs = [
            up.trigger(NIGHTLY, {"changes": as_changes(config)}, idempotency_key="night").json()
            for _ in range(2)
        ]
        state = up.wait(runs[0]["id"], FINAL)

    assert runs[0]["id"] == runs[1]["id"]
    assert state["type"] == "COMPLETED", state["message"]
    assert len(list((tmp_path / "store").glob("runs/*/report.html"))) == 1
    assert "promoted. There was no champion before." in state["message"]
    _wait(lambda: up.webhook.texts, 30)
    told = f"redistill configs/quickstart.yaml | Completed | {state['message'][:40]}"
    assert up.webhook.texts[-1].startswith(told)
    assert up.webhook.texts[-1].endswith(f"/runs/flow-run/{runs[0]['id']}")


def test_run_that_fails_is_told_in_its_own_words(up, tmp_path):
    parameters = {
        "file": str(tmp_path / "none.jsonl"),
        "store": str(tmp_path / "store"),
        "dataset": "word_problems",
        "columns": {"question": "question", "rationales": "said"},
    }

    run = up.trigger("import-rationales/import-rationales", parameters).json()

    assert up.wait(run["id"], FINAL)["type"] == "FAILED"
    _wait(lambda: any(run["id"] in text for text in up.webhook.texts), 30)
    assert f"{tmp_path / 'none.jsonl'} must be a readable file" in up.webhook.texts[-1]


def test_cron_of_every_minute_starts_runs(up, tmp_path):
    """Prefect 3.8 with SQLAlchemy 2.1 shows the schedule as active and never makes a run."""
    config = settings_for(tmp_path, None, data={"dataset": str(tmp_path / "none.yaml")})
    up.switch_nightly(
        active=True,
        schedule={"cron": "* * * * *", "timezone": "UTC"},
        parameters={"changes": as_changes(config)},
    )

    def started():
        runs = up.api.post("/flow_runs/filter", json=_of("redistill-nightly")).json()
        return [run for run in runs if run["auto_scheduled"] and run["start_time"]]

    _wait(started, 200)  # at the next minute; a busy worker takes another one to begin
    up.switch_nightly(active=False)

    run = started()[0]
    assert run["expected_start_time"][17:19] == "00"
    # It really ran: the sentence is the flow's own.
    assert "none.yaml" in up.wait(run["id"], FINAL)["message"]


def test_cancel_in_sampling_leaves_no_child(up, tmp_path):
    run_id, teacher = _start_sampling(up, tmp_path)
    # Its place among the runs of its deployment outlives the server.
    assert any("slots" in file.read_text() for file in up.home.glob("concurrency_leases/*.json"))
    children = _runs(up)
    state = {"type": "CANCELLING", "name": "Cancelling"}

    up.api.post(f"/flow_runs/{run_id}/set_state", json={"state": state})

    assert all_gone([teacher, *(child.pid for child in children)], 30)
    assert up.wait(run_id, FINAL)["type"] == "CANCELLED"


def test_down_ends_every_process_marks_the_run_and_keeps_its_checkpoint(up, tmp_path):
    with taught_teacher() as engine:
        # No checkpoint is due before the end.
        training = {"num_rounds": 1, "steps_per_round": 100_000, "checkpoint_seconds": 3600}
        config = settings_for(tmp_path, engine, training=training)
        run_id = up.trigger("distill/distill", {"config": config}).json()["id"]
        _wait(lambda: _is_training(up, run_id), 120)
    family = [up.pid("server"), up.pid("worker")]
    for name in ("server", "worker"):
        family += [child.pid for child in psutil.Process(up.pid(name)).children(recursive=True)]

    done = qcrd("down")

    assert done.returncode == 0, done.stderr
    assert all_gone(family, 0)
    with sqlite3.connect(up.home / "prefect.db") as database:
        query = "select state_type from flow_run where id = ?"
        (state,) = database.execute(query, (run_id,)).fetchone()
    database.close()
    assert state == "CRASHED"
    (checkpoint,) = (tmp_path / "store").glob("runs/*/checkpoints/round=000/engine/*/DONE")
    assert int(checkpoint.parent.name.split("=")[-1]) > 0


def _is_training(up, run_id):
    """Whether some steps of a run's first round are done."""
    wanted = {"artifacts": {"flow_run_id": {"any_": [run_id]}, "type": {"any_": ["progress"]}}}
    bars = up.api.post("/artifacts/filter", json=wanted).json()
    return any(re.match(r"Round 0: train\w*: [1-9]", bar["description"]) for bar in bars)


def _start_sampling(up, folder):
    """A run whose own teacher, a child process, is at work: (run, process of the teacher)."""
    teacher = {
        "model": {
            "type": "folder",
            "path": str(make_tiny_llama(folder / "llama", max_length=1024)),
        },
        "endpoints": None,
        "concurrency": 1,
    }
    config = settings_for(folder, None, teacher=teacher)
    run = up.trigger("distill/distill", {"config": config}).json()
    _wait(lambda: _stubs(up) or up.state(run["id"])["type"] in FINAL, 90)
    _wait(lambda: any(folder.rglob("generation=*/part-*.parquet")), 30)
    (stub,) = _stubs(up)
    return run["id"], stub


def _runs(up):
    """Processes of the runs and all below them; between is Prefect's worker."""
    workers = psutil.Process(up.pid("worker")).children()
    return [child for worker in workers for child in worker.children(recursive=True)]


def _stubs(up):
    return [
        child.pid for child in _runs(up) if _command(child).startswith(f"{sys.executable} {STUB}")
    ]


def _command(process):
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _of(name):
    return {"deployments": {"name": {"any_": [name]}}, "sort": "EXPECTED_START_TIME_ASC"}


def _wait(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)
