"""Keeps the questions that a served student is asked, if its owner wants that.

    capture = Capture(store, metrics)
    capture.open("pens")                                 reads what is kept already
    question_id = await capture.keep(answered, reply)    on the disk; None if it is not kept
    is_new = await capture.correct("pens", question_id, "10")
    await capture.run()              writes to the store every 30 s, and when it is cancelled

Each question is kept once, with its first answer, and at most 100,000 per data set. What is kept is
in the journal before anybody is told, so a killed server loses nothing. Tables `captured` and
`feedback` of the student's data set get one part per write.
"""

import asyncio
import logging
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from data_schemas import Captured, Feedback, Table
from qcrd_core.data.captured import captured_folder, captured_id, feedback_folder
from qcrd_core.errors import DataError, StoreError
from qcrd_core.serving.batches import Answered
from qcrd_core.serving.journal import Entry, Journal
from qcrd_core.serving.metrics import ServerMetrics
from qcrd_core.serving.responses import Reply
from qcrd_core.store.store import Store, part_name

logger = logging.getLogger(__name__)

MAX_CAPTURED = 100_000
MAX_ANSWERS = 16
"""Right answers that are kept for one question, each different from the one before."""
_SECONDS = 30.0
_PLACES: dict[str, tuple[type[Table], Any]] = {
    "captured": (Captured, captured_folder),
    "feedback": (Feedback, feedback_folder),
}


class TooManyAnswersError(Exception):
    """A question has had `MAX_ANSWERS` right answers already."""


@dataclass
class _Known:
    """What is kept of a data set, in the store or in the journal."""

    choices: dict[str, list[str] | None]
    """Choices of each question, by its id."""
    answers: dict[str, tuple[datetime, str]] = field(default_factory=dict)
    """The latest right answer of a question."""
    num_answers: Counter[str] = field(default_factory=Counter)

    def correct(self, row: dict[str, Any]) -> None:
        self.answers[row["question_id"]] = row["created_at"], row["gold_answer"]
        self.num_answers[row["question_id"]] += 1


class Capture:
    """What one server keeps. Lives inside one event loop."""

    def __init__(self, store: Store, metrics: ServerMetrics, *, limit: int = MAX_CAPTURED) -> None:
        """Open the journal.

        Args:
            store: Where questions go.
            metrics: Counts them.
            limit: Most questions per data set.

        Raises:
            StoreError: If the journal is damaged or cannot be made.
        """
        self._store, self._metrics, self._limit = store, metrics, limit
        self._journal = Journal.of(store)
        self._known: dict[str, _Known] = {}
        self._pending: dict[tuple[str, str], asyncio.Task[bool]] = {}
        self._waiting: list[tuple[Entry, asyncio.Future[bool]]] = []
        self._commits: asyncio.Task[None] | None = None
        self._correcting = asyncio.Lock()

    def open(self, dataset: str) -> int:
        """Read what is kept of a data set.

        Args:
            dataset: Its name.

        Returns:
            Number of questions.

        Raises:
            StoreError: If the store does not answer.
            DataError: If a part is damaged.
        """
        if dataset not in self._known:
            captured, feedback = (self._read(kind, dataset) for kind in _PLACES)
            known = _Known({row["question_id"]: row["choices"] for row in captured})
            for row in sorted(feedback, key=lambda row: row["created_at"]):
                known.correct(row)
            self._known[dataset] = known
        return len(self._known[dataset].choices)

    def choices(self, dataset: str, question_id: str) -> list[str] | None:
        """Choices of a question that is kept.

        Args:
            dataset: Name of an open data set.
            question_id: From `keep`.

        Returns:
            As in table `questions`.

        Raises:
            KeyError: If the question is not kept.
        """
        return self._known[dataset].choices[question_id]

    async def keep(self, answered: Answered, reply: Reply) -> str | None:
        """Keep a question of an open data set, unless it is known.

        Args:
            answered: The question, and the student that read it.
            reply: The answer that is given.

        Returns:
            Its id, once it is on the disk; None if it is not kept, because there are enough or the
            disk is full.
        """
        asked, dataset = answered.reply, answered.student.metadata.dataset
        question_id, known = captured_id(asked.question, asked.choices), self._known[dataset]
        if question_id in known.choices:
            return question_id
        key = dataset, question_id
        if key not in self._pending:
            if len(known.choices) + len(self._pending) >= self._limit:
                self._metrics.not_captured.inc()
                return None
            # A task, because whoever asked may hang up before the disk has it.
            self._pending[key] = asyncio.create_task(self._keep(question_id, answered, reply))
        return question_id if await asyncio.shield(self._pending[key]) else None

    async def correct(self, dataset: str, question_id: str, answer: str) -> bool:
        """Keep the right answer of a question that is kept.

        Args:
            dataset: Name of an open data set.
            question_id: From `keep`.
            answer: The right answer, canonical.

        Returns:
            Whether it differs from the one that was sent before, once it is on the disk.

        Raises:
            TooManyAnswersError: If the question has had `MAX_ANSWERS`.
            StoreError: If the disk is full.
        """
        async with self._correcting:  # so that the same answer, sent twice at once, is one row
            known, now = self._known[dataset], datetime.now(UTC)
            if question_id in known.answers:
                at, latest = known.answers[question_id]
                if latest == answer:
                    return False
                if known.num_answers[question_id] >= MAX_ANSWERS:
                    raise TooManyAnswersError
                now = max(now, at + timedelta(microseconds=1))  # the clock may have gone back
            row = {"question_id": question_id, "created_at": now, "gold_answer": answer}
            entry = Entry("feedback", dataset, f"{question_id} {now.isoformat()}", row)
            if not await self._append(entry):
                msg = "The right answer could not be kept; see the server's log. Send it again."
                raise StoreError(msg)
            known.correct(row)
            self._metrics.feedback.inc()
            return True

    async def run(self) -> None:
        """Write what is new at once, every 30 s until cancelled, and then once more."""
        try:
            while True:
                await asyncio.to_thread(self.write)
                await asyncio.sleep(_SECONDS)
        finally:
            self.write()

    def write(self) -> None:
        """Write what is new. If the store does not take it, it stays for the next time."""
        try:
            self._journal.move(self._write_part)
        except (StoreError, DataError) as error:
            logger.warning("Captured questions wait in the journal: %s", error)

    def _write_part(self, kind: str, dataset: str, rows: list[dict[str, Any]]) -> None:
        table, folder = _PLACES[kind]
        frame = pl.DataFrame(rows, schema=table.create_empty().schema)
        path = f"{folder(dataset)}/{part_name(frame.select(table.primary_key()))}"
        self._store.write_table(path, frame, table)

    def _read(self, kind: str, dataset: str) -> list[dict[str, Any]]:
        table, folder = _PLACES[kind]
        # The journal first: what another server moves between the two reads is then in both.
        new = self._journal.read(kind, dataset)
        stored = self._store.read_table(folder(dataset), table).to_dicts()
        keys = table.primary_key()
        rows = {tuple(row[name] for name in keys): row for row in (*new, *stored)}
        return list(rows.values())

    async def _keep(self, question_id: str, answered: Answered, reply: Reply) -> bool:
        asked, dataset = answered.reply, answered.student.metadata.dataset
        row = {
            "question_id": question_id,
            "question": asked.question,
            "choices": asked.choices,
            "answer": reply.answer,
            "confidence": reply.confidence,
            "answered_by": reply.answered_by,
            "student": reply.label,
            "created_at": datetime.now(UTC),
        }
        is_kept = await self._append(Entry("captured", dataset, question_id, row))
        del self._pending[dataset, question_id]
        if is_kept:
            self._known[dataset].choices[question_id] = asked.choices
            self._metrics.captured.inc()
        else:
            self._metrics.not_captured.inc()
        return is_kept

    async def _append(self, entry: Entry) -> bool:
        """Put an entry into the journal, together with those of other requests: one sync for all.

        Returns:
            Whether it is on the disk.
        """
        is_kept: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, is_kept))
        if self._commits is None or self._commits.done():
            self._commits = asyncio.create_task(self._commit())
        return await is_kept

    async def _commit(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                await asyncio.to_thread(self._journal.add, [entry for entry, _ in batch])
                is_kept = True
            except StoreError as error:
                logger.warning("%d entries are not kept: %s", len(batch), error)
                is_kept = False
            for _, future in batch:
                if not future.done():
                    future.set_result(is_kept)
