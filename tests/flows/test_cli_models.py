"""`qcrd models`, `promote` and `rollback`."""

import os

import pytest

from qcrd_core.registry.registry import read_champion
from qcrd_core.store.store import Store
from tests.support.registered import complete_run


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"), tmp_path / "scratch")


@pytest.fixture
def qcrd(qcrd, monkeypatch, store, tmp_path):
    """Run the command on the store: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: qcrd(*arguments, "--store", store)


def test_promote_registers_a_run_and_says_why_it_is_taken_or_not(qcrd, store):
    complete_run(store, "synthetic-one", lambda number: number < 30)
    complete_run(store, "synthetic-two", lambda number: number < 31)

    first, second = qcrd("promote", "synthetic-one"), qcrd("promote", "synthetic-two")

    assert "one promoted\n      There was no champion before." in first[1]
    assert "p = 0.5, at most 0.05 required: not met." in second[1]
    assert second[1].splitlines()[-1] == (
        f"qcrd promote synthetic/two --store {store} --anyway REASON"
    )


def test_promote_anyway_and_rollback_move_the_champion(qcrd, store):
    for name in ("one", "two"):
        complete_run(store, f"synthetic-{name}", lambda _: True)
    qcrd("promote", "synthetic-one")

    code, out, _ = qcrd("promote", "synthetic-two", "--anyway", "a new test set")
    assert (code, read_champion(store, "synthetic").version) == (0, "two")
    assert "By hand: a new test set" in out
    qcrd("rollback", "synthetic", "--reason", "worse on invoices")
    assert read_champion(store, "synthetic").version == "one"


def test_models_lists_versions_and_decisions_newest_first(qcrd, store):
    for name in ("one", "two"):
        complete_run(store, f"synthetic-{name}", lambda _: True)
        qcrd("promote", f"synthetic-{name}")

    assert qcrd("models")[1] == "synthetic: 2 versions, champion one\n"
    out = qcrd("models", "synthetic")[1]
    assert "* one" in out
    assert "100.0% of 60 test questions  kept  synthetic-two" in out
    assert out.index("two kept (champion before: one)") < out.index("one promoted")
    assert out.splitlines()[-1] == f"qcrd predict {store}/models/synthetic/one FILE.jsonl"


def test_models_of_empty_store_says_how_to_begin(qcrd, store):
    assert qcrd("models")[1].splitlines()[-1] == f"qcrd promote RUN --store {store}"


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("promote", "synthetic-none"), 1, "has no run 'synthetic-none'"),
        (("promote", "synthetic/none"), 2, "has no version synthetic/none"),
        (("models", "synthetic"), 2, "has no model 'synthetic'"),
        (("rollback", "synthetic", "--reason", "no"), 2, "has no model 'synthetic'"),
    ],
)
def test_unknown_names_are_refused(qcrd, arguments, code, sentence):
    said = qcrd(*arguments)

    assert said[0] == code
    assert sentence in said[2]


def test_janitor_only_shows_until_it_is_told_to_delete(qcrd, store):
    store.write_bytes("models/m/_tmp-one/weights", b"half")
    old = store.local("models/m/_tmp-one/weights")
    os.utime(old, (0, 0))

    shown = qcrd("janitor")
    assert old.exists()
    assert "models/m/_tmp-one" in shown[1]
    assert shown[1].splitlines()[-1] == f"qcrd janitor --store {store} --delete"
    removed = qcrd("janitor", "--delete")
    assert not old.exists()
    assert removed[1].splitlines()[-1] == "Deleted 0.0 MB."
    assert qcrd("janitor")[1] == "  Nothing to delete.\n"


def test_janitor_with_wrong_number_exits_with_2(qcrd):
    code, _, err = qcrd("janitor", "--days", "0")

    assert (code, err) == (2, "days must be greater than or equal to 1; got 0 (command line).\n")
