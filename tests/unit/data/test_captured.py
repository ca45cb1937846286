"""Captured questions as training questions."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from data_schemas import Captured
from qcrd_core.config.run import DataSection
from qcrd_core.data.captured import captured_folder, captured_id, with_captured
from qcrd_core.store.store import Store
from tests.support.tables import make_questions

_NOW = datetime(2026, 11, 29, 3, 30, tzinfo=UTC)
_YESTERDAY = _NOW - timedelta(hours=4)


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"), tmp_path / "scratch")


def _capture(store, *rows):
    made = [
        {**Captured.example, "question_id": captured_id(text, choices), "question": text,
         "choices": choices, "created_at": at}
        for text, choices, at in rows
    ]  # fmt: skip
    frame = pl.DataFrame(made, schema=Captured.create_empty().schema)
    store.write_table(f"{captured_folder('pens')}/part-1.parquet", frame, Captured)


def test_captured_questions_of_earlier_days_join_the_training_questions(store):
    known = make_questions([{"question_id": "a", "question": "a?", "split": "train"}])
    _capture(store, ("new?", ["x", "y"], _YESTERDAY), ("of today?", None, _NOW))
    frame = with_captured(store, "pens", known, _NOW)
    (added,) = frame.filter(pl.col("question_id") != "a").to_dicts()
    assert (added["question"], added["choices"], added["split"]) == ("new?", ["x", "y"], "train")
    assert added["gold_answer"] is None
    # Started again that day, after more was captured, the run is the same.
    assert frame.equals(with_captured(store, "pens", known, _NOW + timedelta(hours=20)))


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_captured_question_that_a_split_holds_is_left_out(store, split):
    known = make_questions([{"question_id": "a", "question": "a?", "split": split}])
    _capture(store, ("a?", None, _YESTERDAY))
    assert with_captured(store, "pens", known, _NOW).equals(known)


def test_store_without_captured_questions_adds_none(store):
    known = make_questions([{"question_id": "a", "question": "a?", "split": "train"}])
    assert with_captured(store, "pens", known, _NOW).equals(known)


def test_captured_questions_need_the_majority_as_label():
    assert DataSection(dataset="pens", label="majority", captured=True).captured
    with pytest.raises(ValueError, match=r"data\.captured needs data\.label=majority"):
        DataSection(dataset="pens", captured=True)


def test_setting_that_is_off_leaves_no_trace_in_the_name_of_a_run():
    assert "captured" not in DataSection(dataset="pens").model_dump()
