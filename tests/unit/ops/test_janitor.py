"""What the janitor deletes and what it keeps."""

import os
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from qcrd_core.config.run import validate_config
from qcrd_core.ops.janitor import Retention, find_waste, remove, waste_table
from qcrd_core.registry import registry
from qcrd_core.run.locks import run_lock
from qcrd_core.run.paths import RunPaths
from qcrd_core.store.store import Store
from tests.support.registered import complete_run, registered
from tests.support.synthetic_run import CONFIG

NOW = datetime(2027, 1, 1, tzinfo=UTC)
KEEP_ONE = Retention(keep_runs=1)


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """The system's temporary folder."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"), tmp_path / "scratch")


def _age(store, rel, days):
    """Let all of a folder's files be that old."""
    root = store.local(rel)
    then = (NOW - timedelta(days=days)).timestamp()
    for path in (root, *root.rglob("*")):
        os.utime(path, (then, then))


def _find(store, tmp_path, retention=KEEP_ONE):
    found = find_waste(store, tmp_path / "scratch", retention, NOW)
    return {(waste.kind, waste.path) for waste in found}


def _runs(store, **ages):
    for name, days in ages.items():
        complete_run(store, f"synthetic-{name}", lambda _: True)
        store.delete("runs/synthetic-0123456789ab")
        _age(store, f"runs/synthetic-{name}", days)


def test_old_runs_but_the_newest_go(store, tmp_path):
    _runs(store, a=90, b=60, c=31, d=10)

    assert _find(store, tmp_path) == {("run", f"runs/synthetic-{name}") for name in "abc"}
    assert _find(store, tmp_path, Retention(keep_runs=3)) == {("run", "runs/synthetic-a")}
    assert _find(store, tmp_path, Retention(keep_runs=0, days=100)) == set()


def test_run_in_the_hands_of_a_process_stays(store, tmp_path):
    _runs(store, a=90, b=60)
    run = {**CONFIG["run"], "scratch": str(tmp_path / "scratch")}

    with run_lock(validate_config({**CONFIG, "run": run}, "test"), "synthetic-a"):
        assert _find(store, tmp_path) == set()
    assert ("run", "runs/synthetic-a") in _find(store, tmp_path)


def test_champions_past_and_present_stay_with_their_runs(store, tmp_path):
    for name, right in (("one", 10), ("two", 40), ("kept", 20), ("newest", 0)):
        registered(store, name, lambda number, right=right: number < right)
        rule = validate_config(CONFIG, "test").promotion
        registry.decide(store, "synthetic", name, rule)
    store.delete("runs/synthetic-0123456789ab")
    for number, name in enumerate(("one", "two", "kept", "newest")):
        _age(store, f"runs/synthetic-{name}", 90 - number)
        _age(store, f"models/synthetic/{name}", 90 - number)
    before = store.read_bytes("models/synthetic/champion.json")

    found = find_waste(store, tmp_path / "scratch", KEEP_ONE, NOW)
    remove(store, found)

    assert {waste.path for waste in found} >= {"runs/synthetic-kept"}
    names = {version.name for version in registry.versions(store, "synthetic")}
    assert {"one", "two"} <= names
    assert store.list("runs") == ["synthetic-newest", "synthetic-one", "synthetic-two"]
    assert store.read_bytes("models/synthetic/champion.json") == before
    assert registry.rollback(store, "synthetic", "still possible").version == "one"


def test_version_that_became_champion_in_between_is_left_alone(store, tmp_path):
    for name in ("one", "two", "three"):
        registered(store, name, lambda _: True)
        _age(store, f"models/synthetic/{name}", 90)
    found = [
        waste
        for waste in find_waste(store, tmp_path, Retention(keep_runs=0), NOW)
        if waste.kind == "version"
    ]
    registry.promote(store, "synthetic", "two", "in between")

    remove(store, found)

    assert [version.name for version in registry.versions(store, "synthetic")] == ["two"]


USED = "0123456789ab"


def _generation(store, name, days, **identity):
    folder = f"datasets/sums/rationales/generation={name}"
    store.write_json(f"{folder}/generation.json", identity)
    store.write_bytes(f"{folder}/part-1.parquet", b"samples")
    _age(store, folder, days)
    return folder


def test_generations_go_when_no_run_uses_them_and_there_is_a_newer_one(store, tmp_path):
    unused = _generation(store, "unused", 90)
    _generation(store, USED, 80)
    _generation(store, "imported", 90, source="imported")
    _generation(store, "newest", 70)
    store.write_json(RunPaths("sums-a").environment, {"dataset": "sums", "generation": USED})
    _age(store, "runs/sums-a", 90)

    assert _find(store, tmp_path) == {("generation", unused)}


def test_generation_of_a_run_that_goes_goes_with_it(store, tmp_path):
    folder = _generation(store, USED, 90)
    _generation(store, "newest", 70)
    store.write_json(RunPaths("sums-a").environment, {"dataset": "sums", "generation": USED})
    _age(store, "runs/sums-a", 90)

    found = _find(store, tmp_path, Retention(keep_runs=0))

    assert found == {("run", "runs/sums-a"), ("generation", folder)}


def test_rewrites_go_when_their_rationales_are_gone(store, tmp_path):
    _generation(store, USED, 80)
    store.write_json(RunPaths("sums-a").environment, {"dataset": "sums", "generation": USED})
    _age(store, "runs/sums-a", 90)
    for name, of in (("kept", USED), ("orphaned", "f" * 12)):
        folder = f"datasets/sums/condensed/generation={name}"
        store.write_json(f"{folder}/generation.json", {"condenses": of})
        _age(store, folder, 90)

    assert _find(store, tmp_path) == {("generation", folder)}


@pytest.mark.parametrize(("days", "is_found"), [(0.5, False), (2, True)])
def test_leftovers_of_killed_writers_go_after_a_day(store, tmp_path, days, is_found):
    store.write_bytes("models/m/_tmp-one/weights", b"half")
    store.write_bytes("models/m/two/weights", b"half")
    store.write_bytes("models/m/_tmp-lock-champion.json", b"")
    store.write_bytes("datasets/sums/_tmp-1-part.parquet", b"half")
    _age(store, "", days)

    leftovers = {"models/m/_tmp-one", "models/m/two", "datasets/sums/_tmp-1-part.parquet"}
    expected = {("temporary", path) for path in leftovers}
    assert _find(store, tmp_path) == (expected if is_found else set())


def test_logs_of_runs_that_are_complete_or_gone_go(store, tmp_path):
    _runs(store, done=1)
    complete_run(store, "synthetic-open", lambda _: True)
    store.delete(RunPaths("synthetic-open").result)
    scratch = Path(tmp_path, "scratch", "runs")
    for name in ("synthetic-done", "synthetic-open", "synthetic-gone"):
        (scratch / name).mkdir(parents=True)
        (scratch / name / "train.log").write_text("...")
        then = (NOW - timedelta(days=40)).timestamp()
        os.utime(scratch / name / "train.log", (then, then))

    found = find_waste(store, tmp_path / "scratch", Retention(), NOW)
    remove(store, found)

    assert {waste.kind for waste in found} == {"scratch"}
    assert [path.name for path in scratch.iterdir()] == ["synthetic-open"]


def test_waste_table_names_each_folder_with_its_reason_and_the_sum(store, tmp_path):
    _runs(store, a=90, b=60)

    lines = waste_table(find_waste(store, tmp_path, KEEP_ONE, NOW)).splitlines()

    assert lines[0].split() == ["run", "0.0", "MB", "2026-10-03", "runs/synthetic-a"]
    assert lines[1].strip() == "complete, never champion, newer runs of the same name: 1"
    assert lines[-1].split() == ["total", "0.0", "MB"]


def test_janitor_deletes_what_killed_processes_left_in_the_temporary_folder(
    store, tmp_path, temporary
):
    kept = {"_tmp-qcrd-new", "qcrd-clone", "_tmp-other"}
    for name in ("_tmp-qcrd-old", *kept):
        (temporary / name / "sockets").mkdir(parents=True)
    (temporary / "_tmp-qcrd-old.log").write_text("...")
    for path in temporary.iterdir():
        then = (NOW - timedelta(days=0 if path.name == "_tmp-qcrd-new" else 90)).timestamp()
        os.utime(path, (then, then))

    remove(store, find_waste(store, tmp_path / "scratch", Retention(), NOW))

    assert {path.name for path in temporary.iterdir()} == kept
