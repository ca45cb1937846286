"""The whole of `qcrd run` on an S3 server that fails requests and restarts: as in a folder."""

import json
import shlex
import socket
import subprocess
import threading
import time

import pytest

from qcrd_core.config.run import validate_config
from qcrd_core.run.context import RunContext
from qcrd_core.store.store import Store
from tests.support.comparison import assert_same_tables
from tests.support.distillation import (
    command,
    qcrd,
    settings_for,
    taught_teacher,
    write_settings,
)
from tests.support.s3_server import FAULTS, s3_server

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def runs(prefect_server, s3, tmp_path_factory):
    """The same run in a folder and on a server that fails 5% of the requests and restarts once."""
    assert prefect_server
    assert s3  # sets the credentials
    with taught_teacher() as engine, s3_server(failing=0.05) as server:
        folder = tmp_path_factory.mktemp("folder")
        local = settings_for(folder, engine)
        done = qcrd("run", "--config", write_settings(folder, local))
        assert done.returncode == 0, done.stderr
        bucket = tmp_path_factory.mktemp("bucket")
        remote = settings_for(bucket, engine, run={"store": server.new_store()})
        restart = threading.Thread(target=_restart_midway, args=(server,))
        restart.start()
        done = qcrd("run", "--config", write_settings(bucket, remote))
        restart.join()
        assert done.returncode == 0, done.stderr
        yield _open(local), _open(remote), server, done


def _restart_midway(server):
    """Take the server away for five seconds once a run is well under way."""
    deadline = time.monotonic() + 120
    while server.num_requests < 150 and time.monotonic() < deadline:
        time.sleep(0.01)
    server.restart(5)


def _open(content):
    config = validate_config(content, "test")
    (run_id,) = Store(config.run.store, config.run.scratch).list("runs")
    return RunContext.open(config, run_id)


def test_every_table_is_that_of_the_run_in_a_folder(runs):
    local, remote, server, _ = runs
    rows = assert_same_tables(remote, local)
    assert min(rows.values()) > 0
    assert set(server.faults) == set(FAULTS)


def test_no_credential_is_stored_or_said(runs):
    _, remote, _, done = runs
    words = ("some-key", "some-secret")
    stored = {file.path: remote.store.read_bytes(file.path) for file in remote.store.files("runs")}
    assert [path for path, text in stored.items() if any(w.encode() in text for w in words)] == []
    assert not any(word in done.stdout + done.stderr for word in words)


def test_command_and_report_that_the_run_names_are_there(runs, tmp_path):
    _, remote, _, done = runs
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"question": "Tom had 3 apples and got 4. How many?"}))

    (report,) = [line for line in done.stdout.splitlines() if line.startswith("Report: ")]
    _, *arguments, _ = shlex.split(done.stdout.splitlines()[-1])
    answered = subprocess.run(command(*arguments[-2:], path), capture_output=True, text=True)

    assert report == f"Report: {remote.store}/{remote.paths.report}"
    assert answered.returncode == 0, answered.stderr
    assert (tmp_path / "mine.predictions.jsonl").exists()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "Create the bucket, or append allow_bucket_creation=true"),
        ({"refusal": "403 InvalidAccessKeyId"}, "Check AWS_ACCESS_KEY_ID"),
        ({"refusal": "403 RequestTimeTooSkewed"}, "Set this machine's clock"),
    ],
    ids=["bucket", "credentials", "clock"],
)
@pytest.mark.usefixtures("s3")
def test_run_in_a_wrong_store_ends_with_a_sentence_before_it_begins(tmp_path, settings, sentence):
    with taught_teacher() as engine, s3_server(**settings) as server:
        url = server.new_store().replace("&allow_bucket_creation=true", "")
        content = settings_for(tmp_path, engine, run={"store": url})
        done = qcrd("run", "--config", write_settings(tmp_path, content))
    assert (done.returncode, engine.num_asked) == (1, 0)
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.usefixtures("s3")
def test_run_in_a_store_that_does_not_answer_ends_with_a_sentence(tmp_path):
    with taught_teacher() as engine, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        url = f"s3://bucket/q?endpoint_override={address}&scheme=http&region=us-east-1"
        content = settings_for(tmp_path, engine, run={"store": url})
        done = qcrd("run", "--config", write_settings(tmp_path, content))
    assert done.returncode == 1
    assert "Check the address" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
