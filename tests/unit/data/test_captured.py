"""Captured questions as training questions."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from data_schemas import Captured, Feedback
from qcrd_core.config.run import DataSection
from qcrd_core.data.captured import captured_folder, captured_id, feedback_folder, with_captured
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
    frame, _ = with_captured(store, "pens", known, now=_NOW)
    (added,) = frame.filter(pl.col("question_id") != "a").to_dicts()
    assert (added["question"], added["choices"], added["split"]) == ("new?", ["x", "y"], "train")
    assert added["gold_answer"] is None
    # Started again that day, after more was captured, the run is the same.
    assert frame.equals(with_captured(store, "pens", known, now=_NOW + timedelta(hours=20))[0])


def test_latest_right_answer_of_earlier_days_is_the_gold_answer(store):
    known = make_questions([{"question_id": "a", "question": "a?", "split": "train"}])
    _capture(store, *((text, None, _YESTERDAY) for text in ("b?", "c?", "a?")))
    sent = [
        {"question_id": captured_id(text, None), "created_at": at, "gold_answer": answer}
        for text, at, answer in [
            ("b?", _YESTERDAY, "1"),
            ("b?", _YESTERDAY + timedelta(seconds=1), "2"),
            ("b?", _NOW, "3"),
            ("a?", _YESTERDAY, "4"),
        ]
    ]
    frame = pl.DataFrame(sent, schema=Feedback.create_empty().schema)
    store.write_table(f"{feedback_folder('pens')}/part-1.parquet", frame, Feedback)
    questions, feedback = with_captured(store, "pens", known, now=_NOW)
    assert dict(questions.select("question", "gold_answer").iter_rows())["b?"] == "2"
    assert questions.height == 3
    # Of "c?" nothing is known, and "a?" is a question of the data set.
    assert feedback.select("question_id", "gold_answer").rows() == [(captured_id("b?", None), "2")]


def test_questions_of_which_the_student_was_sure_are_left_out_unless_they_were_corrected(store):
    known = make_questions([{"question_id": "a", "question": "a?", "split": "train"}])
    made = [
        {**Captured.example, "question_id": name, "question": f"{name}?", "created_at": _YESTERDAY,
         "answered_by": who}
        for name, who in [("b", "student"), ("c", "teacher"), ("d", "student"),
                          ("e", "student_without_teacher")]
    ]  # fmt: skip
    frame = pl.DataFrame(made, schema=Captured.create_empty().schema)
    store.write_table(f"{captured_folder('pens')}/part-1.parquet", frame, Captured)
    sent = [{"question_id": "d", "created_at": _YESTERDAY, "gold_answer": "7"}]
    frame = pl.DataFrame(sent, schema=Feedback.create_empty().schema)
    store.write_table(f"{feedback_folder('pens')}/part-1.parquet", frame, Feedback)
    unsure, _ = with_captured(store, "pens", known, is_all=False, now=_NOW)
    everything, _ = with_captured(store, "pens", known, now=_NOW)
    assert unsure["question_id"].to_list() == ["a", "c", "d", "e"]
    assert everything["question_id"].to_list() == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_captured_question_that_a_split_holds_is_left_out(store, split):
    known = make_questions([{"question_id": "a", "question": "a?", "split": split}])
    _capture(store, ("a?", None, _YESTERDAY))
    assert with_captured(store, "pens", known, now=_NOW)[0].equals(known)


def test_store_without_captured_questions_adds_none(store):
    known = make_questions([{"question_id": "a", "question": "a?", "split": "train"}])
    assert with_captured(store, "pens", known, now=_NOW)[0].equals(known)


def test_captured_questions_need_the_majority_as_label():
    assert DataSection(dataset="pens", label="majority", captured="all").captured
    with pytest.raises(ValueError, match=r"data\.captured needs data\.label=majority"):
        DataSection(dataset="pens", captured="unsure")


def test_setting_that_is_off_leaves_no_trace_in_the_name_of_a_run():
    assert "captured" not in DataSection(dataset="pens").model_dump()
