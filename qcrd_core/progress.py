"""Progress of long work: a bar with rate and ETA on a terminal, a log line now and then elsewhere.

    with progress("Sample teacher", total=240, unit="samples") as bar:
        bar.advance(5, note="412 tok/s")

An orchestrator can listen: `listen(callback)` receives (description, done, total) at most once per
second. The Prefect tasks draw their progress artifacts from it.
"""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

logger = logging.getLogger(__name__)

Listener = Callable[[str, int, int], None]

_LINE_SECONDS = 15.0
_LISTEN_SECONDS = 1.0
_SLOW = 0.1
"""Below this rate, units per minute are easier to read than units per second."""
_MINUTES = 5
"""From here on a duration is told in minutes."""
_listeners: list[Listener] = []
_lock = threading.Lock()
_display: Progress | None = None


@contextmanager
def listen(listener: Listener) -> Iterator[None]:
    """Call `listener(description, done, total)` when progress is made, while the block runs."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


class Bar:
    """One line of progress. Made by `progress`; safe to advance from several threads."""

    def __init__(self, description: str, total: int, unit: str) -> None:
        """Start at 0 of `total` units."""
        self.description, self.total, self.unit = description, total, unit
        self.done = 0
        self._start = self._last_line = self._last_listen = time.monotonic()
        self._task: TaskID | None = None
        self._note = ""

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count more units as done.

        Args:
            count: Units.
            note: Text after the bar, for example a loss; the last note stays visible.
        """
        with _lock:
            self.done += count
            self._note = note
            self._show()

    def expect(self, total: int) -> None:
        """Set the total number of units, if it becomes known only after the start."""
        with _lock:
            self.total = total
            if _display is not None and self._task is not None:
                _display.update(self._task, total=total)

    def _show(self, *, last: bool = False) -> None:
        now = time.monotonic()
        rate = self.done / max(now - self._start, 1e-9)
        text = f"{_rate(rate, self.unit)} {self._note}".strip()
        if _display is not None and self._task is not None:
            _display.update(self._task, completed=self.done, note=text)
        elif last or now - self._last_line > _LINE_SECONDS:
            self._last_line = now
            eta = "" if last or not rate else f" | ETA {_duration((self.total - self.done) / rate)}"
            logger.info("%s %d/%d | %s%s", self.description, self.done, self.total, text, eta)
        if last or now - self._last_listen > _LISTEN_SECONDS:
            self._last_listen = now
            for listener in tuple(_listeners):
                listener(self.description, self.done, self.total)


@contextmanager
def progress(description: str, total: int, unit: str = "it") -> Iterator[Bar]:
    """Show progress while the block runs.

    Args:
        description: The work, in a few words.
        total: Total number of units.
        unit: Name of the unit, plural.

    Yields:
        The bar to advance.
    """
    bar = Bar(description, total, unit)
    with _lock:
        display = _shared_display()
        if display is not None:
            bar._task = display.add_task(description, total=total, note="")
    try:
        yield bar
    finally:
        with _lock:
            bar._show(last=True)
            if display is not None and bar._task is not None:
                display.stop_task(bar._task)
                if all(task.stop_time is not None for task in display.tasks):
                    _close_display()


def _rate(per_second: float, unit: str) -> str:
    slow = 0 < per_second < _SLOW
    return f"{60 * per_second:.1f} {unit}/min" if slow else f"{per_second:.1f} {unit}/s"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < _MINUTES:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _shared_display() -> Progress | None:
    # One live display for all bars of the process, because rich allows only one.
    global _display
    if not sys.stderr.isatty():
        return None
    if _display is None:
        _display = Progress(
            TextColumn("{task.description:<24}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
        )
        _display.start()
    return _display


def _close_display() -> None:
    global _display
    if _display is not None:
        _display.stop()
        _display = None
