"""Requests that wait for a student are answered together; the student can be exchanged between.

    batches = Batches(student, batch_size=64, max_waiting=1024, metrics=metrics)
    reply = await batches.ask("How many pens are in 3 boxes of 4?")
    batches.exchange(newer)                        the next batch asks the newer student

A batch holds what waits when the student becomes free, so it grows with the load and nobody waits
for a batch to fill. Each batch is answered by one student, and an exchange loses no request.
"""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from qcrd_core.errors import DataError
from qcrd_core.serving.metrics import ServerMetrics
from qcrd_core.serving.requests import Content
from qcrd_core.serving.student import ServedStudent, StudentReply

logger = logging.getLogger(__name__)


class BusyError(Exception):
    """Too many requests wait."""


@dataclass(frozen=True)
class Answered:
    """A reply and the student that gave it."""

    reply: StudentReply
    student: ServedStudent


@dataclass(frozen=True)
class _Waiting:
    content: Content
    future: "asyncio.Future[Answered]"


class Batches:
    """The queue of one student. Lives inside one event loop."""

    def __init__(
        self,
        student: ServedStudent,
        *,
        batch_size: int,
        max_waiting: int,
        metrics: ServerMetrics,
    ) -> None:
        """Prepare the queue; `run` answers it.

        Args:
            student: Answers the batches until `exchange`.
            batch_size: Most questions per batch.
            max_waiting: Most questions that wait.
            metrics: Counts batches.
        """
        self.student = student
        self.batch_size, self.metrics = batch_size, metrics
        metrics.loaded(student.label)
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(max_waiting)

    def exchange(self, student: ServedStudent) -> None:
        """Let another student answer from the next batch on."""
        self.student = student
        self.metrics.exchanges.inc()
        self.metrics.loaded(student.label)

    async def ask(self, content: Content) -> Answered:
        """Ask the student one question, and wait for the answer.

        Args:
            content: As for `ServedStudent.answer`.

        Returns:
            The answer.

        Raises:
            BusyError: If `max_waiting` questions wait already.
            DataError: If the question cannot be asked.
        """
        waiting = _Waiting(content, asyncio.get_running_loop().create_future())
        try:
            self._queue.put_nowait(waiting)
        except asyncio.QueueFull:
            raise BusyError from None
        self.metrics.waiting.set(self._queue.qsize())
        return await waiting.future

    async def run(self) -> None:
        """Answer batch after batch, until cancelled."""
        loop = asyncio.get_running_loop()
        # Its one thread computes outside Python's lock, so requests are read at the same time.
        with ThreadPoolExecutor(1, "student") as thread:
            while True:
                batch = [await self._queue.get()]
                while len(batch) < self.batch_size and not self._queue.empty():
                    batch.append(self._queue.get_nowait())
                self.metrics.waiting.set(self._queue.qsize())
                # Whoever has hung up is not answered.
                batch = [waiting for waiting in batch if not waiting.future.done()]
                if not batch:
                    continue
                self.metrics.batch_size.observe(len(batch))
                student, contents = self.student, [waiting.content for waiting in batch]
                try:
                    replies = await loop.run_in_executor(thread, student.answer, contents)
                except Exception as error:
                    logger.exception("A batch of %d questions failed.", len(batch))
                    _settle(batch, [error] * len(batch), student)
                else:
                    _settle(batch, replies, student)


def _settle(
    batch: list[_Waiting],
    replies: list[StudentReply | DataError] | list[Exception],
    student: ServedStudent,
) -> None:
    for waiting, reply in zip(batch, replies, strict=True):
        if waiting.future.done():
            continue
        if isinstance(reply, Exception):
            waiting.future.set_exception(reply)
        else:
            waiting.future.set_result(Answered(reply, student))
