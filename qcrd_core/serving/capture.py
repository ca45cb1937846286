"""Keeps the questions that a served student is asked, if its owner wants that.

    capture = Capture(store, metrics)
    capture.add(answered, reply)            at once, in memory
    await capture.run()                     writes what is new every 30 s, and when it is cancelled

Table `captured` of the student's data set gets one part per write. Each question is kept once, with
its first answer, and at most 100,000 per data set. A killed server loses what it has not yet
written, at most the questions of 30 s; what is written is whole.
"""

import asyncio
import logging
from datetime import UTC, datetime
from typing import Any

import polars as pl

from data_schemas import Captured
from qcrd_core.data.captured import captured_folder, captured_id
from qcrd_core.errors import DataError, StoreError
from qcrd_core.serving.batches import Answered
from qcrd_core.serving.metrics import ServerMetrics
from qcrd_core.serving.responses import Reply
from qcrd_core.store.store import Store, part_name

logger = logging.getLogger(__name__)

MAX_CAPTURED = 100_000
_SECONDS = 30.0


class Capture:
    """Questions of one server that are not yet written, and ids of those that are."""

    def __init__(self, store: Store, metrics: ServerMetrics, *, limit: int = MAX_CAPTURED) -> None:
        """Begin with what the store holds.

        Args:
            store: Where questions go.
            metrics: Counts them.
            limit: Most questions per data set.
        """
        self._store, self._metrics, self._limit = store, metrics, limit
        self._known: dict[str, set[str]] = {}
        self._new: dict[str, list[dict[str, Any]]] = {}

    def open(self, dataset: str) -> int:
        """Read which questions of a data set are stored.

        Args:
            dataset: Its name.

        Returns:
            How many they are.

        Raises:
            StoreError: If the store does not answer.
            DataError: If a part is damaged.
        """
        if dataset not in self._known:
            stored = self._store.read_table(captured_folder(dataset), Captured)
            self._known[dataset] = set(stored["question_id"])
        return len(self._known[dataset])

    def add(self, answered: Answered, reply: Reply) -> None:
        """Keep a question, unless it is known or there are enough.

        Args:
            answered: The question, and the student that read it.
            reply: The answer that was given.
        """
        asked, dataset = answered.reply, answered.student.metadata.dataset
        question_id = captured_id(asked.question, asked.choices)
        known = self._known.setdefault(dataset, set())
        if question_id in known:
            return
        if len(known) >= self._limit:
            self._metrics.not_captured.inc()
            return
        known.add(question_id)
        self._metrics.captured.inc()
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
        self._new.setdefault(dataset, []).append(row)

    async def run(self) -> None:
        """Write what is new every 30 s until cancelled, and then once more."""
        try:
            while True:
                await asyncio.sleep(_SECONDS)
                await asyncio.to_thread(self.write)
        finally:
            self.write()

    def write(self) -> None:
        """Write what is new. If the store does not take it, it stays for the next time."""
        for dataset in list(self._new):
            rows = self._new.pop(dataset)
            frame = pl.DataFrame(rows, schema=Captured.create_empty().schema)
            path = f"{captured_folder(dataset)}/{part_name(frame.select('question_id'))}"
            try:
                self._store.write_table(path, frame, Captured)
            except (StoreError, DataError) as error:
                logger.warning("%d captured questions wait: %s", len(rows), error)
                self._new.setdefault(dataset, []).extend(rows)
