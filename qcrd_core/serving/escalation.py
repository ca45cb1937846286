"""Asks the teacher when the student is not sure enough.

    escalation = Escalation(Teacher(endpoint, TeacherRun.of(student)), precision=0.95)
    point = escalation.check(student)
    async with escalation:
        reply = await escalation.final(answered)

The student answers alone when its confidence is at least the lowest one with which its validation
answers keep the wanted precision, by the lower end of the interval. All other questions go to the
teacher, with the prompt of the run. If the teacher is away or has no answer, the student's reply is
given and says so.
"""

import asyncio
import logging
import time
from dataclasses import dataclass, replace
from typing import Self

import httpx

from qcrd_core.config.endpoints import Endpoint
from qcrd_core.config.files import parse_json, read_ordinary
from qcrd_core.config.models import HubModel
from qcrd_core.config.run import RunConfig, read_stored_config
from qcrd_core.data.completions import read_completion
from qcrd_core.data.spec import DatasetSpec
from qcrd_core.errors import ConfigError
from qcrd_core.evaluation import CONFIDENCE
from qcrd_core.serving.batches import Answered
from qcrd_core.serving.responses import Reply
from qcrd_core.serving.student import ServedStudent, StudentReply
from qcrd_core.student.confidence import Point, surest_share
from qcrd_core.teacher.rendering import render
from qcrd_core.teacher.servers.choices import Completion
from qcrd_core.teacher.servers.client import TeacherClient
from qcrd_core.teacher.servers.pool import TeacherPool
from qcrd_core.teacher.servers.replies import Unavailable

logger = logging.getLogger(__name__)

_CONNECT_SECONDS = 10.0
_ANSWER_SECONDS = 120.0
_PAUSE_SECONDS = 10.0
"""After a failure the teacher is left alone for so long; nobody waits for it until then."""
_CUT = frozenset({"length", "content_filter"})


@dataclass(frozen=True)
class TeacherRun:
    """How the run of a student asked its teacher."""

    config: RunConfig
    spec: DatasetSpec

    @classmethod
    def of(cls, student: ServedStudent) -> "TeacherRun":
        """Read the settings of a student's run.

        A version holds them; the student of a run lies beside them.

        Args:
            student: The student.

        Returns:
            The settings.

        Raises:
            ConfigError: If they are absent or damaged.
            StoreError: If they are damaged.
        """
        for folder in (student.folder / "run", student.folder.parent):
            config, spec = folder / "config.yaml", folder / "dataset.json"
            if config.exists() and spec.exists():
                return cls(
                    read_stored_config(read_ordinary(config), str(config)),
                    parse_json(read_ordinary(spec), DatasetSpec, str(spec)),
                )
        msg = (
            f"--teacher needs the settings of the run that made {student.label}, for its prompt; "
            f"got no config.yaml with dataset.json in {student.folder / 'run'} or "
            f"{student.folder.parent}. Serve the student of the run, or a version that this "
            "release has registered."
        )
        raise ConfigError(msg)


def surest_point(student: ServedStudent, precision: float) -> Point:
    """Find the validation answers on which a student keeps a precision.

    Args:
        student: The student.
        precision: Wanted share of right answers among those that it gives alone.

    Returns:
        The answers.

    Raises:
        ConfigError: If its validation answers cannot support the precision.
    """
    calibration = student.metadata.calibration
    if calibration is None:
        msg = (
            f"--target-precision needs a student with confidences; {student.label} has none, "
            "because its validation answers were too few or an earlier release trained it."
        )
        raise ConfigError(msg)
    point = surest_share(calibration, precision=precision)
    if point is None:
        best = max(calibration.points, key=lambda one: one.interval.low)
        msg = (
            f"--target-precision must be one that {calibration.num_questions:,} validation "
            f"questions can show; got {precision:.1%} for {student.label}. Its surest answers "
            f"show at most {best.interval.low:.1%}: {best.num_correct:,} of {best.num_answers:,} "
            f"are right ({CONFIDENCE:.0%} interval {best.interval.low:.1%} to "
            f"{best.interval.high:.1%}). Lower it, or train with more validation questions."
        )
        raise ConfigError(msg)
    return point


class Teacher:
    """A client of one server of the teacher. Lives inside one event loop, as `async with`."""

    def __init__(self, endpoint: Endpoint, run: TeacherRun) -> None:
        """Check that the server serves the teacher.

        Args:
            endpoint: The server.
            run: Names the teacher, and how it is asked.

        Raises:
            ConfigError: If the server serves several models, none of them the run's teacher.
            SamplingError: If it does not answer, or refuses the key.
        """
        self._endpoint = endpoint
        self._pool = TeacherPool(_served_name(endpoint, run.config))
        self._pool.use((endpoint,))
        self._free = asyncio.Semaphore(run.config.teacher.concurrency)
        self._away_until = 0.0
        # Greedy: an answer, not a sample.
        teacher = run.config.teacher.model_copy(update={"sampling_temperature": 0.0})
        self._client = TeacherClient(self._pool, teacher, run.spec.answer)

    @property
    def name(self) -> str:
        """The model that is asked."""
        return self._pool.served_name

    async def __aenter__(self) -> Self:
        """Open the connections."""
        await self._client.__aenter__()
        self._target = self._client.target(self._endpoint)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close them."""
        await self._client.__aexit__(None, None, None)

    async def answer(self, run: TeacherRun, question: StudentReply) -> dict[str, str] | None:
        """Ask one question.

        Args:
            run: The run whose prompt is used.
            question: The question, with its choices.

        Returns:
            text, answer and rationale; None if there is no answer, for whatever reason.
        """
        if time.monotonic() < self._away_until:
            return None
        body = self._client.body(render(run.config, run.spec, question.question, question.turns))
        try:
            async with self._free, asyncio.timeout(_ANSWER_SECONDS):
                reply = await self._client.ask(self._target, body, run.config.teacher.seed, 1)
        except TimeoutError:
            reply = Unavailable(f"no answer within {_ANSWER_SECONDS:.0f} s")
        if isinstance(reply, Unavailable):
            if time.monotonic() >= self._away_until:  # the first of those that asked at once
                logger.warning("%s does not answer: %s", self._endpoint.url, reply.reason)
            self._away_until = time.monotonic() + _PAUSE_SECONDS
            return None
        found = reply[0] if isinstance(reply, tuple) else reply
        if not isinstance(found, Completion):
            return None  # refused; the next question may be answered
        # In a thread: a verifier may take seconds, and other requests must not wait for it.
        read = await asyncio.to_thread(
            read_completion,
            found.text,
            run.spec.answer,
            question.choices,
            question=question.question,
            reasoning=found.reasoning,
            is_cut=found.finish_reason in _CUT,
            is_structured=run.config.teacher.structured_output,
            tags=run.config.teacher.think_tags,
        )
        return read if read["status"] == "ok" else None


class Escalation:
    """Decides who answers, and asks the teacher."""

    def __init__(self, teacher: Teacher, precision: float) -> None:
        """Prepare; the teacher is connected when the block starts.

        Args:
            teacher: Its client.
            precision: Wanted share of right answers among those of the student alone.
        """
        self._teacher, self._precision = teacher, precision
        self._rules: dict[str, tuple[Point, TeacherRun]] = {}

    def check(self, student: ServedStudent) -> Point:
        """Find the threshold of a student before it is asked.

        Args:
            student: The present student, or the one that replaces it.

        Returns:
            Its surest validation answers, which set the threshold.

        Raises:
            ConfigError: If validation cannot support the precision, or the run's settings are
                absent.
            StoreError: If they are damaged.
        """
        point = surest_point(student, self._precision)
        self._rules[student.label] = point, TeacherRun.of(student)
        return point

    async def __aenter__(self) -> Self:
        """Connect the teacher."""
        await self._teacher.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self._teacher.__aexit__()

    async def final(self, answered: Answered) -> Reply:
        """Take the student's reply if it is sure, and otherwise the teacher's.

        Args:
            answered: The student's reply.

        Returns:
            The final one; `answered_by` names who gave it.
        """
        reply, student = Reply.of(answered), answered.reply
        point, run = self._rules[answered.student.label]
        raw = student.raw_confidence
        if student.answer is not None and raw is not None and raw >= point.min_raw_confidence:
            return reply
        found = await self._teacher.answer(run, student)
        if found is None:
            return replace(reply, answered_by="student_without_teacher")
        return replace(
            reply,
            answer=found["answer"],
            text=found["text"],
            rationale=found["rationale"],
            confidence=None,
            answered_by="teacher",
            is_finished=True,
        )


def _served_name(endpoint: Endpoint, config: RunConfig) -> str:
    """The run's teacher, or the only model of a server that gives it another name."""
    model = config.teacher.model
    wanted = model.name if isinstance(model, HubModel) else None
    try:
        answer = httpx.get(
            f"{endpoint.url}/models", headers=endpoint.headers, timeout=_CONNECT_SECONDS
        )
        names = [one["id"] for one in answer.raise_for_status().json()["data"]]
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return wanted or "teacher"  # the pool's own check says what is wrong
    if wanted in names or len(names) != 1:
        return wanted or "teacher"
    return str(names[0])
