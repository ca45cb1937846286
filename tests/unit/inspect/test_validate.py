"""A whole store is found whole; what is damaged is named, and moved away where that is safe."""

import os

import polars as pl
import pytest

from data_schemas import Predictions, Questions, Rationales, Votes
from qcrd_core.ids import fingerprint
from qcrd_core.inspect.validate import repair, validate_store
from qcrd_core.inspect.view import View
from qcrd_core.run.paths import RunPaths
from qcrd_core.store.store import Store, part_name
from qcrd_core.teacher.generation import generation_folder
from tests.support.synthetic_run import GENERATION, RUN_ID, write_synthetic_run
from tests.support.tables import make_rationales

FOLDER = f"datasets/word_problems/rationales/generation={GENERATION}"
PATHS = RunPaths(RUN_ID)


@pytest.fixture
def store(tmp_path):
    store = Store(str(tmp_path / "store"), tmp_path / "scratch")
    write_synthetic_run(store)
    source = store.local("runs/_tmp-model")
    source.mkdir(parents=True)
    (source / "weights").write_text("1", encoding="utf-8")
    store.publish_folder(source, PATHS.best_student)
    return store


@pytest.fixture
def complete(store):
    """The run with validation questions, answers of every round and a result."""
    questions = store.read_table(PATHS.questions, Questions).with_columns(
        split=pl.when(pl.col("question_id") > "q0169")
        .then(pl.lit("validation"))
        .otherwise(pl.col("split").cast(pl.String))
        .cast(Questions.create_empty().schema["split"])
    )
    store.write_table(PATHS.questions, questions, Questions)
    answers = store.read_table(PATHS.predictions("test", 3), Predictions)
    for round_ in range(4):
        part = answers.filter(pl.col("question_id") > "q0169")
        store.write_table(PATHS.predictions("validation", round_), part, Predictions)
    store.write_json(PATHS.result, {"round": 3, "validation_accuracy": 0.5, "test": {}})
    return store


def _part(store, number=0):
    return [file.path for file in store.part_files(FOLDER)][number]


def _problems(store):
    return {finding.path: finding.problem for finding in validate_store(store).findings}


def test_whole_store_has_no_findings(store):
    report = validate_store(store)
    assert report.findings == []
    assert report.num_hashed == 1
    assert report.num_rows > 1000


def _cut(store):
    path = store.local(_part(store))
    path.write_bytes(path.read_bytes()[:500])
    return _part(store), "whole Parquet file"


def _other_generation(store):
    path = _part(store)
    frame = store.read_table(path, Rationales).with_columns(generation=pl.lit("0" * 12))
    store.write_table(path, frame, Rationales)
    return path, "of another generation"


def _renamed(store):
    store.local(_part(store)).rename(store.local(f"{FOLDER}/part-0000000000000000.parquet"))
    return f"{FOLDER}/part-0000000000000000.parquet", "the name that follows from its keys"


def _unknown_question(store):
    frame = store.read_table(_part(store), Rationales).head(1)
    frame = frame.with_columns(question_id=pl.lit("nobody"))
    store.write_table(f"{FOLDER}/part-x.parquet", frame, Rationales)
    return f"{FOLDER}/part-x.parquet", "unknown questions"


def _twice(store):
    frame = store.read_table(_part(store), Rationales).head(2)
    store.write_table(f"{FOLDER}/part-x.parquet", frame, Rationales)
    return FOLDER, "2 duplicate rows"


def _edited_identity(store):
    store.write_json(f"{FOLDER}/generation.json", {"model": "another"})
    return f"{FOLDER}/generation.json", "but its folder is named"


def _no_identity(store):
    store.delete(f"{FOLDER}/generation.json")
    return FOLDER, "has no generation.json"


def _changed_weights(store):
    store.local(f"{PATHS.best_student}/weights").write_text("2", encoding="utf-8")
    return f"{PATHS.best_student}/weights", "its hash differs"


def _lost_weights(store):
    store.local(f"{PATHS.best_student}/weights").unlink()
    return f"{PATHS.best_student}/weights", "is missing"


def _foreign_vote(store):
    frame = store.read_table(PATHS.votes, Votes)
    frame = pl.concat([frame, frame.head(1).with_columns(question_id=pl.lit("nobody"))])
    store.write_table(PATHS.votes, frame, Votes)
    return PATHS.votes, "1 questions that are not in the run"


def _no_config(store):
    store.delete(PATHS.config)
    return PATHS.root, "has no config.yaml"


def _damaged_environment(store):
    store.write_bytes(PATHS.environment, b"{")
    return PATHS.environment, "must be valid JSON"


def _lost_samples(store):
    store.delete(_part(store))
    return PATHS.votes, "that are no longer in the store"


def _lost_numbers(store):
    store.delete(PATHS.metrics_part("train", 1))
    return PATHS.metrics_part("train", 1), "is missing"


def _lost_validation(store):
    store.delete(PATHS.predictions("validation", 0))
    return PATHS.predictions("validation", 0), "is missing"


def _lost_answers(store):
    path = PATHS.predictions("validation", 0)
    store.write_table(path, store.read_table(path, Predictions)[1:], Predictions)
    return path, "lacks 1 validation questions"


@pytest.mark.parametrize(
    "harm",
    [_cut, _other_generation, _renamed, _unknown_question, _twice, _edited_identity, _no_identity,
     _changed_weights, _lost_weights, _foreign_vote, _no_config, _damaged_environment],
    ids=lambda harm: harm.__name__.strip("_"),
)  # fmt: skip
def test_harm_is_named_with_its_path(store, harm):
    path, problem = harm(store)
    assert problem in _problems(store)[path]


def test_whole_complete_run_has_no_findings(complete):
    assert validate_store(complete).findings == []


@pytest.mark.parametrize(
    "harm",
    [_lost_samples, _lost_numbers, _lost_validation, _lost_answers],
    ids=lambda harm: harm.__name__.strip("_"),
)
def test_what_a_complete_run_lost_is_named(complete, harm):
    path, problem = harm(complete)
    assert problem in _problems(complete)[path]


def test_repair_moves_damaged_parts_away_and_leaves_the_rest(store):
    damaged, _ = _cut(store)
    content = store.read_bytes(damaged)
    foreign, _ = _foreign_vote(store)
    old, new = store.local("runs/_tmp-old"), store.local("runs/_tmp-new")
    for path in (old, new):
        path.write_text("x", encoding="utf-8")
    os.utime(old, (1, 1))

    repaired = repair(store, validate_store(store).findings)

    assert {finding.path for finding in repaired} == {damaged, "runs/_tmp-old"}
    assert store.read_bytes(f"quarantine/{damaged}") == content
    assert not store.exists(damaged)
    assert new.exists()
    assert not old.exists()
    assert set(_problems(store)) == {foreign}


def test_repair_leaves_locks_and_folders_that_are_still_written_to(store):
    lock, growing = store.local("runs/_tmp-lock-student"), store.local("runs/_tmp-student")
    growing.mkdir()
    for path in (lock, growing / "old", growing / "new"):
        path.write_text("x", encoding="utf-8")
    for path in (lock, growing / "old", growing):
        os.utime(path, (1, 1))
    assert validate_store(store).findings == []
    os.utime(growing / "new", (1, 1))
    assert [finding.path for finding in validate_store(store).findings] == ["runs/_tmp-student"]


def test_harm_to_rewrites_is_named_and_repaired_like_that_to_samples(store):
    identity = {"condenses": GENERATION}
    folder = generation_folder("word_problems", identity)
    store.write_json(f"{folder}/generation.json", identity)
    rows = make_rationales(
        [{"question_id": "q0001#2", "sample_idx": 0, "generation": fingerprint(identity)}]
    )
    part = f"{folder}/{part_name(rows.select('question_id', 'sample_idx', 'prompt_hash'))}"
    store.write_table(part, rows, Rationales)
    assert validate_store(store).findings == []

    path = store.local(part)
    path.write_bytes(path.read_bytes()[:500])

    (finding,) = validate_store(store).findings
    assert (finding.path, finding.repair) == (part, "quarantine")
    assert folder in [each.folder for each in View(store, None).rewrites]
