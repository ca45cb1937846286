"""Captured questions and right answers: each once, bounded, and first on the disk, then told."""

import asyncio
import sqlite3
import stat
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from data_schemas import Captured, Feedback
from qcrd_core.data.captured import captured_folder, feedback_folder
from qcrd_core.errors import StoreError
from qcrd_core.inspect.validate import validate_store
from qcrd_core.serving.batches import Answered
from qcrd_core.serving.capture import MAX_ANSWERS, Capture, TooManyAnswersError
from qcrd_core.serving.journal import Entry, Journal
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


def _open(store, **settings):
    capture = Capture(store, ServerMetrics(), **settings)
    capture.open("pens")
    return capture


def _keep(capture, replies, **change):
    """Ids under which these replies are kept, all at the same time."""

    async def keep():
        final = [replace(Reply.of(answered), **change) for answered in replies]
        return await asyncio.gather(*map(capture.keep, replies, final))

    return asyncio.run(keep())


def _correct(capture, question_id, *answers):
    async def correct():
        return [await capture.correct("pens", question_id, answer) for answer in answers]

    return asyncio.run(correct())


def _stored(store):
    return store.read_table(captured_folder("pens"), Captured)


def _feedback(store):
    rows = store.read_table(feedback_folder("pens"), Feedback).sort("created_at")
    return rows["gold_answer"].to_list()


def test_question_is_kept_once_with_its_first_answer(store, replies):
    capture = _open(store)
    first = _keep(capture, replies[:3], answer="7", answered_by="teacher")
    assert _keep(capture, [*replies[:4], *replies[:4]], answer="8")[:3] == first
    capture.write()
    stored = _stored(store)
    assert sorted(stored["question"]) == sorted(TEXTS[:4])
    by_question = dict(stored.select("question", "answer").iter_rows())
    assert [by_question[text] for text in TEXTS[:4]] == ["7", "7", "7", "8"]
    assert validate_store(store).findings == []


def test_server_that_starts_again_knows_what_is_stored(store, replies):
    first = _open(store)
    _keep(first, replies[:3])
    first.write()
    second = Capture(store, ServerMetrics())
    assert second.open("pens") == 3
    _keep(second, replies)
    second.write()
    assert _stored(store).height == 6
    assert len(store.part_files(captured_folder("pens"))) == 2


def test_killed_server_leaves_its_questions_to_the_next_one(store, replies):
    killed = _open(store)
    (question_id, *_) = _keep(killed, replies[:3])
    _correct(killed, question_id, "7")
    assert _stored(store).height == 0
    second = Capture(store, ServerMetrics())
    assert second.open("pens") == 3
    assert _correct(second, question_id, "7") == [False]
    second.write()
    assert (_stored(store).height, _feedback(store)) == (3, ["7"])


class KilledError(Exception):
    """Stands for SIGKILL."""


@pytest.mark.parametrize("is_written", [False, True])
def test_server_killed_at_its_write_doubles_nothing(store, replies, is_written, monkeypatch):
    killed = _open(store)
    _keep(killed, replies[:3])
    write_table = Store.write_table

    def die(*arguments):
        if is_written:
            write_table(*arguments)
        raise KilledError

    monkeypatch.setattr(Store, "write_table", die)
    with pytest.raises(KilledError):
        killed.write()
    monkeypatch.undo()

    second = _open(store)
    _keep(second, replies)
    second.write()
    parts = [store.load_part(file.path, Captured) for file in store.part_files("datasets/pens")]
    assert Counter(row for part in parts for row in part["question"]) == Counter(TEXTS[:6])


def test_no_more_than_the_limit_is_kept_and_the_rest_is_counted(store, replies):
    capture = _open(store, limit=2)
    assert [one is not None for one in _keep(capture, replies)] == [True] * 2 + [False] * 4
    capture.write()
    assert _stored(store).height == 2
    text = capture._metrics.text().decode()
    assert "qcrd_captured_questions_total 2.0" in text
    assert "qcrd_questions_not_captured_total 4.0" in text


def test_questions_wait_while_the_store_is_away(store, replies):
    capture = _open(store)
    _keep(capture, replies[:2])
    place = store.local(captured_folder("pens"))
    place.parent.mkdir(parents=True)
    place.write_text("in the way")
    capture.write()
    _keep(capture, replies[:4])
    place.unlink()
    capture.write()
    assert _stored(store).height == 4


def test_question_that_the_disk_does_not_take_is_answered_without_an_id(
    store, replies, monkeypatch
):
    capture = _open(store)

    def refuse(*_):
        message = "no space left"
        raise StoreError(message)

    monkeypatch.setattr(Journal, "add", refuse)
    assert _keep(capture, replies[:2]) == [None, None]
    monkeypatch.undo()
    assert None not in _keep(capture, replies[:2])


def test_server_that_stops_writes_what_is_new(store, replies):
    capture = _open(store)

    async def run():
        task = asyncio.create_task(capture.run())
        await asyncio.gather(*(capture.keep(one, Reply.of(one)) for one in replies))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    assert _stored(store).height == 6


def test_right_answer_is_kept_once_and_the_latest_counts(store, replies):
    capture = _open(store)
    (question_id,) = _keep(capture, replies[:1])
    assert _correct(capture, question_id, "7", "7", "8", "7") == [True, False, True, True]
    capture.write()
    assert _feedback(store) == ["7", "8", "7"]
    assert validate_store(store).findings == []


def test_right_answers_keep_their_order_when_the_clock_goes_back(store, replies):
    capture = _open(store)
    (question_id,) = _keep(capture, replies[:1])
    later = datetime(2999, 1, 1, tzinfo=UTC)
    capture._known["pens"].answers[question_id] = later, "7"
    _correct(capture, question_id, "8", "9")
    capture.write()
    assert _feedback(store) == ["8", "9"]
    assert _correct(_open(store), question_id, "9") == [False]


def test_right_answers_of_a_question_are_bounded(store, replies):
    capture = _open(store)
    (question_id,) = _keep(capture, replies[:1])
    answers = [str(number) for number in range(MAX_ANSWERS)]
    assert all(_correct(capture, question_id, *answers))
    with pytest.raises(TooManyAnswersError):
        _correct(capture, question_id, "other")


@pytest.mark.parametrize("content", [b"no database" * 100, b"SQLite format 3\0" + b"x" * 5000])
def test_damaged_journal_is_one_sentence(tmp_path, content):
    path = tmp_path / "journal.sqlite"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"journal of captured questions .* could not be opened"):
        Journal(path)


def test_journal_is_for_this_user_alone(store, replies):
    _keep(_open(store), replies[:1])
    files = list((store.scratch / "captured").glob("*.sqlite*"))
    assert len(files) == 3
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_journal_with_damaged_rows_or_of_another_layout_is_one_sentence(tmp_path):
    journal = Journal(tmp_path / "a.sqlite")
    journal.add([Entry("captured", "pens", "x", {"created_at": datetime.now(UTC)})])
    with sqlite3.connect(tmp_path / "a.sqlite") as connection:
        connection.execute("UPDATE entries SET content = '[7]'")
    with pytest.raises(StoreError, match="could not be read"):
        journal.read("captured", "pens")
    with sqlite3.connect(tmp_path / "b.sqlite") as connection:
        connection.execute("CREATE TABLE entries (kind TEXT)")
    with pytest.raises(StoreError, match="no such column"):
        Journal(tmp_path / "b.sqlite")
