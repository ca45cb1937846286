"""Which student a server asks, and how it learns of a new champion.

`qcrd serve MODEL` takes the folder or URL of a student. With --store, MODEL is a name in the store:
of a model, whose champion is followed; MODEL/VERSION, which stays; or of a run.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qcrd_core.config.files import expand_user
from qcrd_core.errors import ConfigError, QcrdError
from qcrd_core.registry.registry import find_version, model_names, read_champion
from qcrd_core.run.paths import RunPaths
from qcrd_core.serving.batches import Batches
from qcrd_core.serving.student import ServedStudent
from qcrd_core.stages.prediction import fetch_student
from qcrd_core.store.store import Store

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StudentSource:
    """Where the student is."""

    model: str
    """Name under which it is served."""
    label: str
    """Which student it is: a version, a run or a folder."""
    folder: Path
    """Its folder on this machine."""
    champion_of: Store | None = None
    """The store whose champion of `model` is followed; None if the student stays."""

    def newer(self) -> "StudentSource | None":
        """The present champion, if it is another student.

        Raises:
            StoreError: If it cannot be read.
            ConfigError: If its version is missing.
        """
        if self.champion_of is None:
            return None
        name = read_champion(self.champion_of, self.model).version
        if name is None or f"{self.model}/{name}" == self.label:
            return None
        return _version(self.champion_of, self.model, name, is_champion=True)


def find_student(student: str, store: Store | None, scratch: Path) -> StudentSource:
    """Find the student that a command names.

    Args:
        student: Folder or URL; with a store the name of a model, MODEL/VERSION or a run.
        store: Holds models and runs; None if none was named.
        scratch: Folder for a copy of a student in an object store.

    Returns:
        The student, on this machine.

    Raises:
        ConfigError: If there is no such student.
        StoreError: If the store does not answer, or a file differs from the published one.
    """
    if store is None:
        return _in_folder(student, scratch)
    model, slash, version = student.partition("/")
    if slash:
        return _version(store, model, version, is_champion=False)
    if model in model_names(store):
        name = read_champion(store, model).version
        if name is None:
            msg = f"{model} has no champion yet ({store}). Choose one with `qcrd promote`."
            raise ConfigError(msg)
        return _version(store, model, name, is_champion=True)
    paths = RunPaths(student)
    if student in store.list("runs") and store.is_published(paths.best_student):
        return StudentSource(student, student, store.fetch_folder(paths.best_student, check=True))
    known = ", ".join([*model_names(store), *store.list("runs")]) or "none"
    msg = f"{store} has no model and no complete run {student!r}. Its models and runs: {known}."
    raise ConfigError(msg)


def load_student(
    student: str,
    store: str | None = None,
    *,
    scratch: Path = Path(".qcrd/scratch"),
    batch_size: int = 64,
) -> ServedStudent:
    """Load the student that `qcrd serve STUDENT --store STORE` would serve.

    Args:
        student: Folder or URL; with a store the name of a model, MODEL/VERSION or a run.
        store: Folder or URL of the store.
        scratch: Folder for a copy of a student in an object store.
        batch_size: Texts per batch.

    Returns:
        The student; its `answer` takes questions.

    Raises:
        ConfigError: If there is no such student, or it cannot be loaded.
        StoreError: If the store does not answer, or a file differs from the published one.
    """
    source = find_student(student, None if store is None else Store(store, scratch), scratch)
    return ServedStudent.load(source.folder, source.label, batch_size=batch_size)


async def follow(
    batches: Batches,
    source: StudentSource,
    *,
    seconds: float,
    check: Callable[[ServedStudent], object] = lambda _: None,
) -> None:
    """Exchange the student whenever the champion changes, until cancelled.

    The new student is loaded beside the present one, which answers until then. If it cannot be
    loaded, the present one stays, and the next look tries again.

    Args:
        batches: The queue whose student is exchanged.
        source: The present student.
        seconds: Time between two looks at `champion.json`.
        check: Raises a `QcrdError` if a loaded student cannot be used.
    """
    problem = ""
    while source.champion_of is not None:
        await asyncio.sleep(seconds)
        try:
            newer = await asyncio.to_thread(source.newer)
            if newer is None:
                continue
            student = await asyncio.to_thread(
                ServedStudent.load, newer.folder, newer.label, batch_size=batches.batch_size
            )
            await asyncio.to_thread(check, student)
        except QcrdError as error:
            batches.metrics.failed_exchanges.inc()
            if str(error) != problem:
                problem = str(error)
                logger.warning("%s %s keeps answering.", problem, source.label)
            continue
        source, problem = newer, ""
        batches.exchange(student)
        logger.info("%s answers from now on.", source.label)


def _in_folder(student: str, scratch: Path) -> StudentSource:
    if "://" not in student and not expand_user(student).is_dir():
        msg = (
            "MODEL must be the folder or URL of a student, or a name in the store that --store "
            f"names; got {student!r} without --store."
        )
        raise ConfigError(msg)
    folder = fetch_student(student, scratch)
    # In `<store>/runs/<run id>/student` the last part says nothing.
    parts = student.partition("?")[0].rstrip("/").split("/")
    name = parts[-2] if parts[-1] == "student" and len(parts) > 1 else folder.name
    return StudentSource(name, name, folder)


def _version(store: Store, model: str, name: str, *, is_champion: bool) -> StudentSource:
    version = find_version(store, model, name)
    folder = store.fetch_folder(version.folder, check=True)
    return StudentSource(model, f"{model}/{name}", folder, store if is_champion else None)
