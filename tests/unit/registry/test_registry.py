"""Versions, champion and history of a model, on a local store; S3 is in integration."""

import json

import pytest

from qcrd_core.config.operations import PromotionSection
from qcrd_core.errors import ConfigError, StoreError
from qcrd_core.registry import registry
from qcrd_core.run.paths import RunPaths
from qcrd_core.store.store import Store
from tests.support.registered import complete_run, registered

MODEL, RULE = "synthetic", PromotionSection()


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"), tmp_path / "scratch")


def _decide(store, name):
    return registry.decide(store, MODEL, name, RULE)


def _champion(store):
    return registry.read_champion(store, MODEL).version


def test_register_copies_the_student_with_card_lineage_and_answers(store):
    card = {"license": "apache-2.0", "teacher_license": "own | <b>"}
    version = registered(store, "aaaa", lambda number: number < 30, card=card)
    store.delete(RunPaths(version.run_id).root)  # a version does not need its run

    folder = store.fetch_folder(version.folder)

    assert (version.accuracy, version.num_test) == (0.5, 60)
    assert {path.name for path in folder.iterdir()} == {
        "DONE", "README.md", "config.json", "run", "test", "version.json",
    }  # fmt: skip
    assert {path.name for path in (folder / "run").iterdir()} == {
        "config.yaml", "dataset.json", "environment.json",
    }  # fmt: skip
    text = (folder / "README.md").read_text()
    assert text.startswith("---\nlicense: apache-2.0\n")
    assert "| teacher | own \\| &lt;b> |" in text
    assert "| test | 50.0% | 30 | 60 |" in text
    assert "Answers have no confidence. Confidences need at least 20 validation" in text
    assert "| questions | 6 train, 60 test |" in text
    assert "| run | synthetic-aaaa |" in text
    assert registry.versions(store, MODEL) == [version]


def test_register_again_changes_nothing(store):
    first = registered(store, "aaaa", lambda _: True)

    assert registry.register(store, "synthetic-aaaa") == first


def test_register_refuses_a_run_without_result(store):
    complete_run(store, "synthetic-aaaa", lambda _: True)
    store.delete(RunPaths("synthetic-aaaa").result)

    with pytest.raises(StoreError, match=r"is not complete\. Finish it before"):
        registry.register(store, "synthetic-aaaa")


def test_decide_promotes_first_then_only_the_better_one(store):
    for name, right in (("first", 30), ("worse", 20), ("equal", 30), ("better", 40)):
        registered(store, name, lambda number, right=right: number < right)
    actions = [_decide(store, name).action for name in ("first", "worse", "equal", "better")]

    assert actions == ["promoted", "kept", "kept", "promoted"]
    champion = registry.read_champion(store, MODEL)
    assert champion.version == "better"
    assert [entry.previous for entry in champion.history] == [None, "first", "first", "first"]
    assert champion.history[-1].comparison.num_gained == 10


def test_decide_upon_the_champion_adds_nothing(store):
    registered(store, "first", lambda _: True)
    entry = _decide(store, "first")

    assert _decide(store, "first") == entry
    assert len(registry.read_champion(store, MODEL).history) == 1


def test_decide_twice_alike_keeps_one_entry(store):
    registered(store, "aaaa", lambda _: True)
    registered(store, "bbbb", lambda number: number < 30)
    _decide(store, "aaaa")

    first, second = _decide(store, "bbbb"), _decide(store, "bbbb")

    assert first.action == registry.KEPT
    assert (second.at, second.reasons) == (first.at, first.reasons)
    assert len(registry.read_champion(store, MODEL).history) == 2


def test_decide_with_another_rule_adds_another_entry(store):
    registered(store, "aaaa", lambda number: number < 30)
    registered(store, "bbbb", lambda number: number < 31)
    _decide(store, "aaaa")
    assert _decide(store, "bbbb").action == registry.KEPT

    entry = registry.decide(store, MODEL, "bbbb", PromotionSection(max_p_value=1.0))

    assert entry.action == registry.PROMOTED
    assert len(registry.read_champion(store, MODEL).history) == 3


def test_decide_that_cannot_explain_its_decision_stores_none(store):
    registered(store, "aaaa", lambda _: True)

    def explain(entry):
        assert entry.action == registry.PROMOTED
        raise StoreError(entry.version)

    with pytest.raises(StoreError, match="aaaa"):
        registry.decide(store, MODEL, "aaaa", RULE, explain=explain)

    assert registry.read_champion(store, MODEL).history == ()


def test_decide_on_changed_test_set_keeps_the_champion_until_a_person_decides(store):
    registered(store, "first", lambda number: number < 30)
    registered(store, "other", lambda _: True, change=lambda frame: frame.head(50))
    _decide(store, "first")

    entry = _decide(store, "other")

    assert entry.action == "kept"
    assert "16 of its 60 questions were removed" in entry.reasons[0]
    assert registry.promote(store, MODEL, "other", "new test set").action == "promoted"
    assert _champion(store) == "other"


def test_rollback_restores_the_champion_before_and_then_the_one_before_that(store):
    for name, right in (("one", 20), ("two", 40), ("three", 60)):
        registered(store, name, lambda number, right=right: number < right)
        _decide(store, name)

    assert registry.rollback(store, MODEL, "worse on invoices").version == "two"
    assert registry.rollback(store, MODEL, "still").version == "one"
    with pytest.raises(ConfigError, match=r"has no earlier champion .*; its champion is one"):
        registry.rollback(store, MODEL, "again")
    assert registry.champions(registry.read_champion(store, MODEL)) == {"one", "two", "three"}


def test_rollback_of_unknown_model_names_those_there_are(store):
    registered(store, "one", lambda _: True)

    with pytest.raises(ConfigError, match=r"has no model 'synthetik'. Its models: synthetic"):
        registry.rollback(store, "synthetik", "typing")
    assert registry.model_names(store) == [MODEL]


def test_decide_with_missing_champion_says_what_to_do(store):
    for name in ("one", "two"):
        registered(store, name, lambda _: True)
    _decide(store, "one")
    store.delete(f"models/{MODEL}/one")

    with pytest.raises(StoreError, match=r"folder of the champion .* is missing"):
        _decide(store, "two")


def test_promotion_is_one_write_of_pointer_and_history(store, tmp_path):
    registered(store, "one", lambda _: True)
    _decide(store, "one")

    content = json.loads((tmp_path / "store/models/synthetic/champion.json").read_text())

    assert content["champion"] == "one"
    assert content["history"][0]["action"] == "promoted"
