"""What an S3 server adds to tests/unit/store/test_store.py: other machines, mirrors, refusals."""

import json
import shutil
import socket
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import polars as pl
import pytest
from moto.core.authorization import enable_iam_authentication

from data_schemas import Predictions, Rationales
from qcrd_core.config.operations import PromotionSection
from qcrd_core.errors import StoreAwayError, StoreError
from qcrd_core.inspect.find import find_rows
from qcrd_core.inspect.question import read_question
from qcrd_core.inspect.summary import summarize
from qcrd_core.inspect.validate import validate_store
from qcrd_core.inspect.view import View
from qcrd_core.ops.janitor import Retention, find_waste, remove
from qcrd_core.progress import Bar
from qcrd_core.registry.registry import decide, promote, read_champion, rollback
from qcrd_core.stages.prediction import fetch_student
from qcrd_core.store.compact import compact
from qcrd_core.store.parts import collect, open_folder
from qcrd_core.store.store import DONE, Store
from tests.support.registered import registered
from tests.support.s3_server import FAULTS, s3_server
from tests.support.synthetic_run import RUN_ID, Shape, write_synthetic_run

ROOT = Path(__file__).parents[2]
STUDENT = "runs/a/checkpoints/student"
_PUBLISH = """
import sys
from pathlib import Path
from qcrd_core.store.store import Store

url, scratch, source, rel = sys.argv[1:]
Store(url, Path(scratch)).publish_folder(Path(source), rel)
"""


@pytest.fixture
def url(s3):
    return s3.new_store()


@pytest.fixture
def store(url, tmp_path):
    return Store(url, tmp_path / "one")


@pytest.fixture
def elsewhere(url, tmp_path):
    """The same store on another machine: its mirror is empty."""
    return Store(url, tmp_path / "other")


def _rows(*names):
    rows = [{"question_id": name, "round": 0, "split": "test", "text": "4"} for name in names]
    nothing = pl.lit(None)
    return pl.DataFrame(rows).with_columns(
        answer=pl.col("text"),
        gold_answer=nothing,
        is_correct=nothing,
        raw_confidence=nothing,
        confidence=nothing,
    )


def _publish(store, rel=STUDENT, **files):
    source = store.local(rel).with_name("_tmp-student")
    shutil.rmtree(source, ignore_errors=True)
    for name, content in files.items():
        path = source / "deep" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    store.publish_folder(source, rel)
    assert not source.exists()


def _content(folder):
    return {path.name: path.read_bytes() for path in (folder / "deep").iterdir()}


def test_tables_written_are_read_back_as_one(store, elsewhere):
    store.write_table("runs/a/part-2.parquet", _rows("b", "c"), Predictions)
    store.write_table("runs/a/part-1.parquet", _rows("a"), Predictions)
    assert elsewhere.read_table("runs/a", Predictions)["question_id"].to_list() == ["a", "b", "c"]
    assert elsewhere.read_table("runs/none", Predictions).is_empty()


def test_delete_removes_file_folder_and_mirror(store):
    store.write_json("runs/a/config.json", {})
    _publish(store, weights=b"1")
    store.delete("runs/a/config.json")
    assert store.list("runs/a") == ["checkpoints"]
    store.delete("runs/a")
    store.delete("runs/a")
    assert not store.exists("runs/a")
    assert not store.local("runs/a").exists()


def test_published_folder_is_fetched_whole_by_another_machine(store, elsewhere):
    files = {"weights": bytes(11_000_000), "config": b"{}"}
    _publish(store, **files)
    assert _content(elsewhere.fetch_folder(STUDENT)) == files
    assert _content(store.fetch_folder(STUDENT)) == files
    assert elsewhere.local(STUDENT) != store.local(STUDENT)


def test_fetch_folder_by_all_ranks_at_once_gives_each_the_whole(store, elsewhere):
    files = {"weights": bytes(1_000_000), "config": b"{}"}
    _publish(store, **files)
    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(elsewhere.fetch_folder, [STUDENT] * 4))
    assert len(set(folders)) == 1
    assert _content(folders[0]) == files


def test_fetch_folder_published_anew_elsewhere_is_not_the_mirrored_one(store, elsewhere):
    _publish(store, weights=b"old", extra=b"old")
    elsewhere.fetch_folder(STUDENT)
    _publish(store, weights=b"new")
    assert _content(elsewhere.fetch_folder(STUDENT)) == {"weights": b"new"}
    assert store.list(f"{STUDENT}/deep") == ["weights"]


def test_fetch_folder_whose_mirror_was_lost_or_cut_short_downloads_again(store, elsewhere):
    _publish(store, weights=b"1")
    shutil.rmtree(store.local(STUDENT))
    half = elsewhere.local(STUDENT) / "deep"
    half.mkdir(parents=True)
    (half / "left-over").write_bytes(b"half")
    assert _content(elsewhere.fetch_folder(STUDENT)) == {"weights": b"1"}
    assert _content(store.fetch_folder(STUDENT)) == {"weights": b"1"}


def test_fetch_student_by_url_with_options_finds_the_published_folder(url, store, tmp_path):
    _publish(store, weights=b"1")
    address, _, options = url.partition("?")
    folder = fetch_student(f"{address}/{STUDENT}?{options}", tmp_path / "other")
    assert _content(folder) == {"weights": b"1"}


def test_fetch_folder_with_an_exchanged_file_is_refused(store, elsewhere):
    _publish(store, weights=b"right")
    store.write_bytes(f"{STUDENT}/deep/weights", b"wrong")
    with pytest.raises(StoreError, match=r"deep/weights must match the hash in its DONE file"):
        elsewhere.fetch_folder(STUDENT)
    assert not (elsewhere.local(STUDENT) / DONE).exists()


def test_publish_folder_killed_half_way_leaves_no_mixture_and_can_be_repeated(
    url, store, elsewhere, tmp_path
):
    _publish(store, weights=b"old")
    source = store.local("runs/a/_tmp-student")
    source.mkdir(parents=True)
    (source / "first").write_bytes(b"new")
    with (source / "second").open("wb") as file:
        file.truncate(64_000_000)
    command = [sys.executable, "-c", _PUBLISH, url, str(tmp_path / "one"), str(source), STUDENT]
    with subprocess.Popen(command, cwd=ROOT) as process:
        while not elsewhere.exists(f"{STUDENT}/first"):
            time.sleep(0.01)
        process.kill()
    assert not elsewhere.is_published(STUDENT)
    _publish(store, weights=b"new")
    assert _content(elsewhere.fetch_folder(STUDENT)) == {"weights": b"new"}


def test_check_writable_makes_an_allowed_bucket_and_leaves_nothing(store):
    store.check_writable()
    assert store.list("") == []


def test_check_writable_in_absent_bucket_is_refused(url, tmp_path):
    store = Store(url.replace("&allow_bucket_creation=true", ""), tmp_path)
    with pytest.raises(
        StoreError, match=r"could not be written: Bucket 'bucket-\w+' not found.*Create the bucket"
    ):
        store.check_writable()


@pytest.mark.parametrize("is_known", [True, False], ids=["wrong-secret", "unknown-key"])
def test_check_writable_with_wrong_credentials_is_refused(s3, url, tmp_path, monkeypatch, is_known):
    Store(url, tmp_path).write_bytes("kept", b"1")
    key = _user(s3)
    with enable_iam_authentication():  # the server computes each signature itself
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        Store(url, tmp_path).check_writable()
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        if not is_known:
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        code = "SIGNATURE_DOES_NOT_MATCH" if is_known else "INVALID_ACCESS_KEY_ID"
        with pytest.raises(
            StoreError, match=f"could not be read: {code} .*Check AWS_ACCESS_KEY_ID, AWS_SECRET"
        ):
            Store(url, tmp_path).check_writable()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"clock_ahead": timedelta(hours=1)}, "REQUEST_TIME_TOO_SKEWED .*Set this machine's clock"),
        ({"refusal": "400 ExpiredToken"}, "ExpiredToken .*AWS_SESSION_TOKEN, or the profile"),
        ({"refusal": "403 AccessDenied"}, "ACCESS_DENIED .*their permissions in this bucket"),
    ],
    ids=["clock", "expired", "denied"],
)
def test_check_writable_that_the_server_refuses_says_what_to_mend(tmp_path, settings, sentence):
    with s3_server(**settings) as server, pytest.raises(StoreError, match=sentence) as caught:
        Store(server.new_store(), tmp_path).check_writable()
    assert not isinstance(caught.value, StoreAwayError)


def test_store_that_does_not_answer_is_given_up_within_a_minute(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        ports = [silent.getsockname()[1], closed.getsockname()[1]]
        stores = [Store(_address(port), tmp_path) for port in ports]
        start = time.monotonic()
        with ThreadPoolExecutor(2) as pool:
            errors = list(pool.map(_refusal, stores))
    assert time.monotonic() - start < 60
    assert "Timeout was reached" in errors[0]
    assert "Could not connect to server" in errors[1]


def _address(port):
    return f"s3://bucket/q?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"


def _user(server):
    """Make a user who may do anything in S3, and their key."""
    iam = boto3.client("iam", endpoint_url=f"http://{server.address}", region_name="us-east-1")
    name = uuid.uuid4().hex
    iam.create_user(UserName=name)
    rule = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [rule]})
    iam.put_user_policy(UserName=name, PolicyName="all", PolicyDocument=policy)
    return iam.create_access_key(UserName=name)["AccessKey"]


def _refusal(store):
    with pytest.raises(
        StoreAwayError, match=r"could not be read: NETWORK.*Check the address"
    ) as caught:
        store.check_writable()
    return str(caught.value)


def test_messages_show_neither_options_nor_credentials(store):
    with pytest.raises(
        StoreError, match=r"^s3://bucket-\w+/some/prefix/none could not be read"
    ) as caught:
        store.read_bytes("none")
    shown = json.dumps([str(caught.value), str(store)])
    assert not [word for word in ("endpoint_override", "some-key", "some-secret") if word in shown]


def test_promoted_on_one_machine_is_rolled_back_on_another(store, elsewhere):
    for name, right in (("one", 20), ("two", 40)):
        registered(store, name, lambda number, right=right: number < right)
        decide(store, "synthetic", name, PromotionSection())

    entry = rollback(elsewhere, "synthetic", "worse on invoices")

    assert read_champion(store, "synthetic").version == entry.version == "one"
    folder = elsewhere.fetch_folder("models/synthetic/one")
    assert (folder / "README.md").read_text().startswith("---")


def test_janitor_takes_an_old_run_from_the_bucket_and_its_copy_from_the_disk(store, tmp_path):
    registered(store, "one", lambda _: True)
    promote(store, "synthetic", "one", "the first")
    later = datetime.now(UTC) + timedelta(days=40)

    found = find_waste(store, tmp_path, Retention(keep_runs=0), later)
    remove(store, found)

    assert {(waste.kind, Path(waste.path).name) for waste in found} >= {
        ("run", "synthetic-0123456789ab"), ("scratch", "synthetic-one"), ("scratch", "one"),
    }  # fmt: skip
    assert store.list("runs") == ["synthetic-one"]
    assert store.fetch_folder("models/synthetic/one").is_dir()


def test_run_in_a_bucket_is_inspected_validated_and_compacted(store, elsewhere):
    write_synthetic_run(store, Shape(num_train=20, num_test=5, num_rounds=2, steps_per_round=2))
    view = View(elsewhere, RUN_ID)
    before = summarize(view)
    assert before.counts["num_rows"].sum() == 20 * 5 + 20
    found = find_rows(view, "source = 'teacher' AND is_correct", limit=5)
    assert 5 == found.rows.height < found.num_rows
    assert read_question(view, "q0003").rows.height == 6
    assert validate_store(elsewhere).findings == []
    (generation,) = view.generations
    assert compact(elsewhere, generation.folder, Bar("Compact", 0, "rows")).num_after == 1
    assert summarize(view).counts.equals(before.counts)


def test_server_that_fails_a_fifth_of_the_requests_loses_nothing(tmp_path):
    large = bytes(range(256)) * 48_000  # 12 MB: in parts, each of which may fail
    with s3_server() as server:
        store = Store(server.new_store(), tmp_path / "one")
        store.check_writable()
        server.failing = 0.2
        for number in range(30):
            store.write_bytes(f"runs/{number}", b"%d" % number)
        store.write_bytes("runs/large", large)
        _publish(store, weights=large, config=b"{}")
        elsewhere = Store(store.url(), tmp_path / "other")
        assert [elsewhere.read_bytes(f"runs/{n}") for n in range(30)] == [
            b"%d" % n for n in range(30)
        ]
        assert elsewhere.read_bytes("runs/large") == large
        assert _content(elsewhere.fetch_folder(STUDENT)) == {"weights": large, "config": b"{}"}
        store.delete("runs")
        assert store.files("runs") == ()
        assert set(server.faults) == set(FAULTS)


def test_server_that_restarts_is_waited_for(tmp_path):
    with s3_server() as server, ThreadPoolExecutor(1) as pool:
        store = Store(server.new_store(), tmp_path)
        store.check_writable()
        restart = pool.submit(server.restart, 3)
        for number in range(20):
            store.write_bytes(f"runs/{number}", b"1")
            time.sleep(0.05)
        restart.result()
        assert len(store.list("runs")) == 20


def test_server_that_refuses_a_read_is_not_taken_for_damage(tmp_path):
    with s3_server() as server:
        store = Store(server.new_store(), tmp_path / "one")
        write_synthetic_run(store, Shape(num_train=20, num_test=5, num_rounds=2, steps_per_round=2))
        (generation,) = View(store, RUN_ID).generations
        listed = open_folder(store, generation.folder, Rationales)
        lazy = listed.scan()
        row = store.part_files(generation.folder)[0]
        server.refusal = "403 AccessDenied"
        with pytest.raises(StoreError, match=r"could not be read: .*ACCESS_DENIED"):
            listed.scan()
        with pytest.raises(StoreError, match=r"could not be read: .*ACCESS_DENIED"):
            collect(lazy, "the store")
        with pytest.raises(StoreError, match=r"could not be read: .*ACCESS_DENIED"):
            open_folder(Store(store.url(), tmp_path / "other"), row.path, Rationales)
        server.refusal = "503 SlowDown"
        with pytest.raises(StoreAwayError, match=r"could not be read: .*SLOW_DOWN"):
            validate_store(store)
