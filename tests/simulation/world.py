"""Virtual time: processes and threads as fibers of one real thread, on one seeded clock.

A fiber (a greenlet) runs real, synchronous code until it waits: for the disk, in `time.sleep`, or
because its event loop has nothing to do. Then the world wakes the fiber whose time comes first.
Nothing runs between two waits of a fiber, so a night is one sequence of steps that only the seed
decides, however its processes interleave.
"""

import asyncio
import heapq
import itertools
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from greenlet import getcurrent, greenlet

from qcrd_core.runtime.lock import open_lock_file

MOST_STEPS = 30_000
MOST_SECONDS = 72 * 3600.0


class Killed(BaseException):
    """The process of the running fiber is dead; nothing that it still does reaches the disk."""


class EndlessError(Exception):
    """A night does not end."""


@dataclass(eq=False)
class Process:
    """One start of `qcrd`."""

    name: str
    kill_at: int | None = None
    """Number of its change of the disk at which it is killed; None if it may live."""
    num_changes: int = 0
    is_dead: bool = False
    stored: frozenset[int] = frozenset()
    """Seeds of the samples that were stored when it started."""
    fibers: list["Fiber"] = field(default_factory=list)


class Fiber(greenlet):
    """A thread of a process."""

    def __init__(self, process: Process, function: Callable[[], None], hub: greenlet) -> None:
        super().__init__(function, parent=hub)
        self.process = process
        self.ticket = -1
        process.fibers.append(self)


class World:
    """The clock, the processes and the chance of one night."""

    def __init__(self, seed: int | str) -> None:
        self.random = Random(seed)
        self.now = 0.0
        self.num_steps = self.num_kills = 0
        self.trace: list[tuple[float, str, str]] = []
        """Every disk operation: when, by which process, what."""
        self._hub = getcurrent()
        self._queue: list[tuple[float, int, Fiber]] = []
        self._tickets = itertools.count()
        self._locks: dict[str, list[tuple[Process, bool]]] = {}

    @property
    def process(self) -> Process | None:
        """The running process; None while the night itself is set up or inspected."""
        return getattr(getcurrent(), "process", None)

    def start(self, process: Process, function: Callable[[], None], after: float = 0.0) -> Fiber:
        """Begin a fiber. If its process is killed, it just ends."""

        def body() -> None:
            try:
                if not process.is_dead:
                    function()
            except Killed:
                pass

        fiber = Fiber(process, body, self._hub)
        self._wake(fiber, after)
        return fiber

    def run(self) -> None:
        """Run all fibers to their ends."""
        while self._queue:
            when, ticket, fiber = heapq.heappop(self._queue)
            if fiber.ticket != ticket or fiber.dead:
                continue
            self.now = max(self.now, when)
            self.num_steps += 1
            if self.num_steps > MOST_STEPS or self.now > MOST_SECONDS:
                msg = f"still running after {self.now:.0f} s and {self.num_steps} steps"
                raise EndlessError(msg)
            fiber.switch()

    def drain(self) -> None:
        """Let the killed fibers end."""
        while self._queue:
            _, ticket, fiber = heapq.heappop(self._queue)
            if fiber.ticket == ticket and not fiber.dead:
                fiber.switch()

    def wait(self, seconds: float | None) -> None:
        """Let the others run for so long, or until `wake`."""
        fiber = getcurrent()
        if seconds is None:
            fiber.ticket = next(self._tickets)
        else:
            self._wake(fiber, seconds)
        loop = asyncio._get_running_loop()
        task = None if loop is None else asyncio.current_task(loop)
        if task is not None:
            asyncio.tasks._leave_task(loop, task)
        asyncio._set_running_loop(None)
        self._hub.switch()
        asyncio._set_running_loop(loop)
        if task is not None:
            asyncio.tasks._enter_task(loop, task)
        if fiber.process.is_dead:
            raise Killed

    def wake(self, fiber: Fiber) -> None:
        """Let a waiting fiber go on now."""
        self._wake(fiber, 0.0)

    def _wake(self, fiber: Fiber, seconds: float) -> None:
        fiber.ticket = next(self._tickets)
        heapq.heappush(self._queue, (self.now + seconds, fiber.ticket, fiber))

    def kill(self, process: Process) -> None:
        """Kill a process: each of its fibers ends with `Killed` at the place where it waits."""
        process.is_dead = True
        for fiber in process.fibers:
            if not fiber.dead and fiber is not getcurrent():
                self.wake(fiber)

    def run_async(self, main: Coroutine[Any, Any, Any]) -> Any:
        """What `asyncio.run` does, in virtual time."""
        loop = Loop(self)
        try:
            return loop.run_until_complete(main)
        finally:
            loop.end()

    @contextmanager
    def lock(self, path: Path, *, shared: bool = False, wait: bool = True) -> Iterator[bool]:
        """As `qcrd_core.runtime.lock.lock`: the lock of a dead process is free."""
        open_lock_file(path).close()
        holders = self._locks.setdefault(str(path), [])
        while any(not holder.is_dead and not (shared and also) for holder, also in holders):
            if not wait:
                yield False
                return
            self.wait(0.05)
        mine = (self.process, shared)
        holders.append(mine)
        try:
            yield True
        finally:
            holders.remove(mine)


class _Task(asyncio.Task):
    """A task whose place in a set does not depend on its address."""

    def __init__(self, *args: Any, number: int, **more: Any) -> None:
        self._number = number
        super().__init__(*args, **more)

    def __hash__(self) -> int:
        return self._number


class Loop(asyncio.BaseEventLoop):
    """An event loop whose time is the world's, and whose threads are fibers."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world, self._fiber, self._selector = world, getcurrent(), self
        self._sleeps = self._is_over = False
        self.set_exception_handler(lambda *_: None)
        self._made: list[_Task] = []
        self._threads: list[Fiber] = []
        self.set_task_factory(self._make_task)

    def _make_task(self, _: Any, main: Any, **more: Any) -> "_Task":
        task = _Task(main, loop=self, number=len(self._made), **more)
        self._made.append(task)
        return task

    def time(self) -> float:
        return self._world.now

    def select(self, timeout: float | None) -> list[Any]:
        """Sleep until the next timer, or until a thread calls back."""
        if timeout is None or timeout > 0:
            self._sleeps = True
            try:
                self._world.wait(timeout)
            finally:
                self._sleeps = False
        return []

    def _process_events(self, events: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        if self._sleeps:
            self._world.wake(self._fiber)

    def run_in_executor(self, _: Any, function: Callable[..., Any], *args: Any) -> Any:
        """Run a function in another fiber of the same process."""
        process = self._fiber.process
        if process.is_dead:
            raise Killed
        future = self.create_future()

        def work() -> None:
            found: tuple[Callable[[Any], None], Any]
            try:
                found = (future.set_result, function(*args))
            except (Exception, Killed) as error:  # noqa: BLE001  (handed to the caller)
                found = (future.set_exception, error)
            if not self._is_over:
                self.call_soon_threadsafe(lambda: future.done() or found[0](found[1]))

        self._threads.append(self._world.start(process, work))
        return future

    def end(self) -> None:
        """Cancel what is left; the tasks of a dead process do nothing any more."""
        left = [task for task in self._made if not task.done()]
        for task in left:
            task.cancel()
        if left and not self._fiber.process.is_dead:
            self.run_until_complete(asyncio.wait(left))
        while not all(task.done() for task in left):
            self.call_soon(self.stop)
            self.run_forever()
        self._is_over = True
        self.close()
        while not self._fiber.process.is_dead and not all(fiber.dead for fiber in self._threads):
            self._world.wait(0.01)  # as `asyncio.run` waits for its threads
