"""Captured questions: each once, bounded, and kept until the store takes them."""

import asyncio
from dataclasses import replace

import pytest

from data_schemas import Captured
from qcrd_core.data.captured import captured_folder
from qcrd_core.inspect.validate import validate_store
from qcrd_core.serving.batches import Answered
from qcrd_core.serving.capture import Capture
from qcrd_core.serving.metrics import ServerMetrics
from qcrd_core.serving.responses import Reply
from qcrd_core.serving.student import ServedStudent
from qcrd_core.store.store import Store
from tests.support.served import TEXTS, write_student


@pytest.fixture(scope="module")
def replies(tmp_path_factory):
    folder = write_student(tmp_path_factory.mktemp("student"))
    student = ServedStudent.load(folder, "tiny/a", batch_size=8)
    return [Answered(reply, student) for reply in student.answer(TEXTS[:6])]


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"), tmp_path / "scratch")


def _add(capture, replies, **change):
    for answered in replies:
        capture.add(answered, replace(Reply.of(answered), **change))


def _stored(store):
    return store.read_table(captured_folder("pens"), Captured)


def test_question_is_kept_once_with_its_first_answer(store, replies):
    capture = Capture(store, ServerMetrics())
    _add(capture, replies[:3], answer="7", answered_by="teacher")
    _add(capture, replies[:4], answer="8")
    capture.write()
    stored = _stored(store)
    assert sorted(stored["question"]) == sorted(TEXTS[:4])
    by_question = dict(stored.select("question", "answer").iter_rows())
    assert [by_question[text] for text in TEXTS[:4]] == ["7", "7", "7", "8"]
    assert validate_store(store).findings == []


def test_server_that_starts_again_knows_what_is_stored(store, replies):
    first = Capture(store, ServerMetrics())
    _add(first, replies[:3])
    first.write()
    second = Capture(store, ServerMetrics())
    assert second.open("pens") == 3
    _add(second, replies)
    second.write()
    assert _stored(store).height == 6
    assert len(store.part_files(captured_folder("pens"))) == 2


def test_no_more_than_the_limit_is_kept_and_the_rest_is_counted(store, replies):
    metrics = ServerMetrics()
    capture = Capture(store, metrics, limit=2)
    _add(capture, replies)
    capture.write()
    assert _stored(store).height == 2
    text = metrics.text().decode()
    assert "qcrd_captured_questions_total 2.0" in text
    assert "qcrd_questions_not_captured_total 4.0" in text


def test_questions_wait_while_the_store_is_away(store, replies):
    capture = Capture(store, ServerMetrics())
    _add(capture, replies[:2])
    place = store.local(captured_folder("pens"))
    place.parent.mkdir(parents=True)
    place.write_text("in the way")
    capture.write()
    place.unlink()
    capture.write()
    assert _stored(store).height == 2


def test_server_that_stops_writes_what_is_new(store, replies):
    capture = Capture(store, ServerMetrics())

    async def run():
        task = asyncio.create_task(capture.run())
        await asyncio.sleep(0)
        _add(capture, replies)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    assert _stored(store).height == 6
