"""A night: real planning, sampling, vote, rounds and promotion on the simulated machine."""

import asyncio
import atexit
import contextlib
import itertools
import logging
import random
import shutil
import ssl
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp

from data_schemas import Rationales
from qcrd_core.config.run import RunConfig, validate_config
from qcrd_core.errors import LaunchError, StoreAwayError
from qcrd_core.ids import content_hash
from qcrd_core.registry import nightly, registry
from qcrd_core.run import context as run_context
from qcrd_core.run import locks
from qcrd_core.runtime.processes import Finished
from qcrd_core.stages import plan, rates, rounds, sampling, voting
from qcrd_core.store import filesystem, parts, store
from qcrd_core.teacher import sample
from qcrd_core.teacher.servers import dispatch
from qcrd_core.teacher.servers.server_state import Batch
from tests.simulation import trainer
from tests.simulation.disk import Bucket, Folder, Gate
from tests.simulation.memory import remember
from tests.simulation.teacher import Pool, Servers, Session
from tests.simulation.world import World

_MEMORY = Path("/dev/shm")
ROOT = Path(tempfile.mkdtemp(prefix="qcrd-nights-", dir=_MEMORY if _MEMORY.is_dir() else None))
GATE = Gate(str(ROOT))
URLS = tuple(f"http://gpu{number}:8000/v1" for number in range(3))
MORNING = datetime(2026, 11, 1, tzinfo=UTC)


@dataclass
class Night:
    """One night and what it may meet."""

    world: World
    servers: Servers
    is_bucket: bool = False
    jumps: list[tuple[float, int]] = field(default_factory=list)
    """When the wall clock jumps, and by how many days."""
    stored: set[int] = field(default_factory=set)
    """Seeds of the samples whose part was written."""
    errors: list[str] = field(default_factory=list)
    """What a user would have read, start by start."""

    @property
    def num_kills(self) -> int:
        """How many processes were killed."""
        return self.world.num_kills

    @property
    def digest(self) -> str:
        """A hash of every step, by which a replay is compared."""
        steps = [(when, process, what.split()[0]) for when, process, what in self.world.trace]
        return content_hash(repr(steps))

    @property
    def days_off(self) -> int:
        """By how many days the wall clock is wrong."""
        return sum(days for when, days in self.jumps if when <= self.world.now)


class NumberedBatch(Batch):
    """A batch whose place in a set does not depend on its address."""

    numbers = itertools.count()

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._number = next(self.numbers)

    def __hash__(self) -> int:
        return self._number


NIGHT: Night | None = None
"""The night that runs now; the patches below ask it."""


class Wall(datetime):
    """A wall clock that counts days: coarser times would not change what a night does."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return datetime.fromtimestamp(MORNING.timestamp() + 86_400 * NIGHT.days_off, tz)


class Inline:
    """What the index of parts uses of a ThreadPoolExecutor, without threads."""

    def __init__(self, _: int) -> None:
        pass

    def __enter__(self) -> "Inline":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, function: Callable[[Any], Any], items: Any) -> list[Any]:
        return [function(item) for item in items]


def install() -> None:
    """Replace what lies around the code under test: clock, chance, disk, network and jobs."""
    for folder in (ROOT, f"{ROOT}-aside"):
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    logging.disable(logging.CRITICAL)
    remember()
    time.monotonic = lambda: NIGHT.world.now if NIGHT else 0.0
    time.sleep = lambda seconds: NIGHT.world.wait(seconds)
    asyncio.run = lambda main: NIGHT.world.run_async(main)
    uuid.uuid4 = lambda: uuid.UUID(int=random.getrandbits(128))
    ssl.create_default_context = lambda: None
    aiohttp.TCPConnector = aiohttp.DummyCookieJar = lambda **_: None
    aiohttp.ClientSession = lambda **_: Session(NIGHT.servers)
    for module in (sample, sampling, plan, registry):
        module.datetime = Wall
    store.open_file_system = _open_file_system
    parts.ThreadPoolExecutor = Inline
    filesystem.lock = locks.lock = lambda path, **more: NIGHT.world.lock(path, **more)
    sampling.teacher_endpoints = _teacher_endpoints
    dispatch.Batch = NumberedBatch
    rounds.run_job = _run_job
    rounds.write_report = lambda opened, run_id: opened.write_bytes(
        f"runs/{run_id}/report.html", b"<html>"
    )
    registry.model_card = lambda *_: "card"
    plan._version = plan._commit = lambda *_: None
    # Durations and rates are no results, and would make every table of a night a new one.
    run_context.time = rounds.time = SimpleNamespace(monotonic=lambda: 0.0)
    rates.Rates.add = lambda *_: None
    Folder.gate = Bucket.gate = GATE
    GATE.wall = lambda: Wall.now(UTC).timestamp()
    store.Store.write_table = _noting(store.Store.write_table)


def _noting(write_table: Callable[..., None]) -> Callable[..., None]:
    def write(self: store.Store, rel: str, frame: Any, table: Any) -> None:
        write_table(self, rel, frame, table)
        if table is Rationales and rel.startswith("datasets/"):
            NIGHT.stored.update(frame["seed"].to_list())

    return write


def _open_file_system(url: str) -> tuple[Any, str]:
    path = str(Path(url).absolute())
    if NIGHT.is_bucket:
        return Bucket("/", filesystem.fs.LocalFileSystem()), path.lstrip("/")
    return Folder(), path


@contextlib.contextmanager
def _teacher_endpoints(teacher: Any, prepared: Any, *_: Any) -> Iterator[Pool]:
    yield Pool(NIGHT.servers, teacher.endpoints, prepared.served_name)


def _run_job(function: Any, job: Any, *, log: Path, on_event: Any = None) -> Finished[Any]:
    del log
    NIGHT.world.wait(NIGHT.world.random.uniform(1.0, 60.0))
    try:
        value = getattr(trainer, function.__name__)(job, on_event or (lambda _: None))
    except OSError as error:
        msg = f"The job {function.__name__} failed: {error}"
        raise LaunchError(msg) from error
    return Finished(value, 1)


def make_config(**sections: dict[str, Any]) -> RunConfig:
    """Settings of a night of two rounds."""
    content: dict[str, Any] = {
        "run": {"name": "night", "store": str(ROOT / "store"), "scratch": str(ROOT / "scratch")},
        "data": {"dataset": "word_problems", "max_train": 5, "max_validation": 3, "max_test": 6},
        "teacher": {
            "model": {"type": "hub", "name": "stub"},
            "endpoints": list(URLS),
            "api": "completions",
            "num_samples": 3,
            "questions_per_shard": 2,
            "concurrency": 4,
        },
        "voting": {"tie": "first"},
        "negatives": {"lag": 1},
        "discriminator": {"model": {"type": "scratch"}},
        "student": {"model": {"type": "scratch"}},
        "training": {"num_rounds": 2, "steps_per_round": 2, "global_batch_size": 64},
        "promotion": {"max_p_value": 1.0},
    }
    for name, section in sections.items():
        content[name] = {**content[name], **section}
    return validate_config(content, "simulation")


def whole_night(config: RunConfig) -> None:
    """The flow `redistill-nightly` without Prefect: the same calls in the same order."""
    night = nightly.plan_night(config, warm_start=False)
    if night.is_new:
        run_id = carry_out(night.config)
        stage(lambda: nightly.decide_night(night, run_id))


def carry_out(config: RunConfig) -> str:
    """The flow `distill` without Prefect; returns the name of the run."""
    planned = plan.plan_run(config)
    if not planned.is_complete:
        plan.begin_run(planned)
    context = planned.context
    with locks.run_lock(config, planned.run_id):
        with locks.sampling_lock(config, planned.run_id):
            stage(lambda: rounds.check_student(context))
            stage(lambda: sampling.sample_teacher(context))
            stage(lambda: voting.vote_rationales(context))
        stage(lambda: rounds.make_tokenizers(context))
        for number in range(config.training.num_rounds):
            train_round(context, number)
        stage(lambda: rounds.finish(context))
    return str(planned.run_id)


def train_round(context: Any, number: int) -> None:
    source = rounds.negatives_checkpoint(context.config.negatives, number)
    if source is not None:
        stage(lambda: rounds.sample_negatives(context, number, source))
    stage(lambda: rounds.score_rationales(context, number))
    stage(lambda: rounds.train_round(context, number))
    stage(lambda: rounds.evaluate(context, "validation", number))
    stage(lambda: rounds.prune(context, number))


def stage(step: Callable[[], Any]) -> None:
    """A task: it is tried again after pauses if the store does not answer."""
    for pause in (10.0, 30.0, 90.0):
        try:
            step()
        except StoreAwayError:
            time.sleep(pause)
        else:
            return
    step()
