"""Draws a night from one integer, plays it to its end, and checks it."""

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from qcrd_core.errors import QcrdError
from qcrd_core.registry import nightly, registry
from qcrd_core.run import locks
from qcrd_core.run.context import RunContext
from qcrd_core.run.paths import RunPaths
from qcrd_core.stages import plan, sampling
from qcrd_core.store.store import Store
from tests.simulation import night as machine
from tests.simulation.checks import (
    DOUBLED,
    ENDLESS,
    UNEXPLAINED,
    BrokenError,
    check_end,
    check_now,
)
from tests.simulation.disk import TROUBLES
from tests.simulation.night import (
    GATE,
    ROOT,
    URLS,
    Night,
    carry_out,
    make_config,
    stage,
    whole_night,
)
from tests.simulation.teacher import Servers
from tests.simulation.tree import Tree
from tests.simulation.world import EndlessError, Process, World

STORE, SCRATCH = ROOT / "store", ROOT / "scratch"
_TREE = Tree(ROOT, STORE.name)
_MOST_STARTS = 40
_YESTERDAY = make_config(training={"num_rounds": 1, "steps_per_round": 1})
_EARLIER = make_config(data={"max_train": 3}, teacher={"num_samples": 2})
_TONIGHT = make_config()


@dataclass(frozen=True)
class Kind:
    """A part of the night, which is played alone."""

    name: str
    work: Callable[[], None]
    before: Callable[[], None]
    """Makes the store that the night finds."""
    seconds: float
    """About as long as it takes."""


def _yesterday() -> None:
    whole_night(_YESTERDAY)


def _begun() -> None:
    """A run whose generation holds fewer questions and fewer samples of each."""
    earlier = plan.plan_run(_EARLIER)
    plan.begin_run(earlier)
    sampling.sample_teacher(earlier.context)
    earlier.context.store.delete(earlier.context.paths.root)
    plan.begin_run(plan.plan_run(_TONIGHT))


def _sample() -> None:
    planned = _run_id()
    context = RunContext.open(_TONIGHT, planned)
    with locks.sampling_lock(_TONIGHT, planned):
        stage(lambda: sampling.sample_teacher(context))


@cache
def _run_id() -> str:
    return plan.plan_run(_TONIGHT).run_id


def _finished() -> None:
    """A finished run, whose student nobody has registered, beside yesterday's champion."""
    whole_night(_YESTERDAY)
    night = nightly.plan_night(_TONIGHT, warm_start=False)
    carry_out(night.config)
    store = Store(str(STORE), SCRATCH)
    for run_id in store.list("runs"):
        if run_id != _run_id():
            store.delete(f"runs/{run_id}")
    root = RunPaths(_run_id()).root
    for rest in ("negatives", "scores", "tokenizer", "polarity.parquet"):
        store.delete(f"{root}/{rest}")
    for name in store.list(f"{root}/metrics"):
        if not name.startswith(("vote", "validation", "test")):
            store.delete(f"{root}/metrics/{name}")
    _plan()


@cache
def _plan() -> nightly.Night:
    """Tonight's plan, which nothing that this kind of night changes can change."""
    return nightly.plan_night(_TONIGHT, warm_start=False)


def _promote() -> None:
    night, store = _plan(), Store(str(STORE), SCRATCH)
    if registry.read_champion(store, "night").latest(night.version) is None:
        stage(lambda: nightly.decide_night(night, _run_id()))


KINDS = {
    "whole": Kind("whole", lambda: whole_night(_TONIGHT), _yesterday, 300.0),
    "sampling": Kind("sampling", _sample, _begun, 30.0),
    "promotion": Kind("promotion", _promote, _finished, 0.5),
}


LAST: Night | None = None
"""The night that was played last."""


def kind_of(seed: int) -> Kind:
    """One night in 64 is whole."""
    if seed % 64 == 0:
        return KINDS["whole"]
    return KINDS["sampling" if seed % 3 == 0 else "promotion"]


def play(seed: int, kind: Kind | None = None) -> Night:
    """Play one night.

    Raises:
        BrokenError: If an invariant does not hold.
    """
    global LAST
    kind = kind or kind_of(seed)
    world = World(seed)
    chance = world.random
    is_bucket = chance.random() < 0.4
    found, wanted, num_changes = undisturbed(kind, is_bucket)
    night = _begin(world, is_bucket)
    _restore(found, f"{kind.name} {is_bucket}")
    _draw_troubles(night, kind)
    LAST = night
    cast = _Cast(night, kind, chance.choice((0, 1, 1, 2, 3)), num_changes)
    starts = [0.0]
    if chance.random() < 0.35:
        starts += [chance.uniform(0.0, kind.seconds) for _ in range(chance.choice((1, 1, 2)))]
    for number, after in enumerate(starts):
        cast.start(f"{chr(97 + number)}", after)
    try:
        world.run()
    except EndlessError as error:
        raise BrokenError(ENDLESS, str(error)) from error
    finally:
        cast.stop()
    if cast.num_left:
        raise BrokenError(ENDLESS, f"{cast.num_left} processes wait for nothing")
    files = _look()
    check_now(files)
    check_end(files, wanted, is_double=len(starts) > 1)
    if night.servers.twice:
        raise BrokenError(DOUBLED, f"{len(night.servers.twice)} stored samples asked for again")
    return night


class _Cast:
    """The processes of a night: each is started again until its work is done."""

    def __init__(self, night: Night, kind: Kind, kills: int, num_changes: int) -> None:
        self._night, self._kind = night, kind
        self._kills, self._num_changes = kills, num_changes
        self._all: list[Process] = []
        self.num_left = 0

    def start(self, name: str, after: float, number: int = 1) -> None:
        night, chance = self._night, self._night.world.random
        self.num_left += number == 1
        kill_at = None
        if self._kills and chance.random() < 0.8:
            self._kills -= 1
            kill_at = chance.randint(1, self._num_changes)
        process = Process(f"{name}{number}", kill_at)
        self._all.append(process)

        def run() -> None:
            process.stored = frozenset(night.stored)
            is_done = False
            try:
                self._kind.work()
                is_done = True
            except QcrdError as error:
                night.errors.append(f"{process.name}: {error}")
            except OSError as error:
                raise BrokenError(UNEXPLAINED, f"a traceback: {error!r}") from error
            finally:
                if is_done:
                    self.num_left -= 1
                elif not self._is_stopped:
                    check_now(_look())
                    self.again(name, number)

        night.world.start(process, run, after)

    _is_stopped = False

    def again(self, name: str, number: int) -> None:
        if number >= _MOST_STARTS:
            raise BrokenError(ENDLESS, f"{name} was started {number} times")
        self.start(name, self._night.world.random.uniform(1.0, 60.0), number + 1)

    def stop(self) -> None:
        """End what still runs after a broken invariant."""
        self._is_stopped = True
        for process in self._all:
            self._night.world.kill(process)
        self._night.world.drain()
        GATE.world = machine.NIGHT = None


def _begin(world: World, is_bucket: bool) -> Night:
    random.seed(world.random.random())
    machine.NumberedBatch.numbers = itertools.count()
    night = Night(world, Servers(world, URLS), is_bucket)
    machine.NIGHT, GATE.world, GATE.troubles = night, world, []
    return night


def _draw_troubles(night: Night, kind: Kind) -> None:
    chance = night.world.random
    for what in TROUBLES:
        if chance.random() < 0.25:
            start = chance.uniform(0.0, kind.seconds)
            GATE.troubles.append((start, start + chance.expovariate(3.0 / kind.seconds), what))
    if chance.random() < 0.2:
        night.jumps.append((chance.uniform(0.0, kind.seconds), chance.choice((-400, -1, 1, 30))))


@cache
def undisturbed(kind: Kind, is_bucket: bool) -> tuple[dict[str, bytes], dict[str, bytes], int]:
    """The store before and after a night in which nothing happens, and its number of changes."""
    _TREE.empty()
    stores = []
    for work in (kind.before, kind.work):
        world = World("undisturbed")
        night = _begin(world, is_bucket)
        night.servers.share, night.servers.down = 0.0, {}
        process = Process("nobody")
        world.start(process, work)
        world.run()
        stores.append(_look())
    GATE.world = machine.NIGHT = None
    return stores[0], stores[1], process.num_changes


def _look() -> dict[str, bytes]:
    """The visible store, past the gate."""
    world, GATE.world = GATE.world, None
    files = _TREE.visible()
    GATE.world = world
    return files


def _restore(files: dict[str, bytes], kind: str) -> None:
    gate, GATE.world = GATE.world, None
    _TREE.restore(files, kind, machine.MORNING.timestamp() - 86_400)
    GATE.world = gate
