"""Bugs to plant, at least one per invariant: a simulator that finds none of them proves nothing."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from qcrd_core.errors import StoreError
from qcrd_core.ids import file_hash
from qcrd_core.registry import registry
from qcrd_core.registry.registry import Champion
from qcrd_core.store.filesystem import upload
from qcrd_core.store.store import DONE, Store
from qcrd_core.teacher.servers.dispatch import Dispatcher
from tests.simulation.checks import BrokenError
from tests.simulation.nights import KINDS, play


@dataclass(frozen=True)
class Bug:
    """A mistake that somebody could make in the product."""

    name: str
    invariant: str
    """The one that must be seen broken."""
    kind: str
    """The kind of night that sees it."""
    place: Any
    function: str
    make: Callable[[Any], Any]
    """Makes the wrong function from the right one."""


def _in_place(_: Any) -> Any:
    def write_bytes(self: Store, rel: str, content: Any) -> None:
        path = self.path(rel)
        with self.explained(rel, "written"):
            self._make_folder(path.rpartition("/")[0])
            with self.file_system.open_output_stream(path) as sink:
                sink.write(content)

    return write_bytes


def _done_first(_: Any) -> Any:
    def publish_folder(self: Store, source: Path, rel: str) -> None:
        names = [path.relative_to(source).as_posix() for path in source.rglob("*")]
        files = sorted(name for name in names if (source / name).is_file())
        target = self.local(rel)
        with self.explained(rel, "written"):
            self.write_json(f"{rel}/{DONE}", {name: file_hash(source / name) for name in files})
            for name in files:
                if self.is_local:
                    (target / name).parent.mkdir(exist_ok=True)
                    (source / name).rename(target / name)
                else:
                    upload(source / name, self.file_system, self.path(f"{rel}/{name}"))

    return publish_folder


def _promoted_first(register: Any) -> Any:
    def wrong(store: Store, run_id: str, *, name: str, **more: Any) -> Any:
        registry._write(store, "night", Champion(name, ()))
        return register(store, run_id, name=name, **more)

    return wrong


def _silent(write_table: Any) -> Any:
    def wrong(*args: Any) -> None:
        with contextlib.suppress(StoreError):
            write_table(*args)

    return wrong


def _reworded(send_again: Any) -> Any:
    def wrong(self: Dispatcher, request: Any, *args: Any, **more: Any) -> None:
        request.body = request.body.replace(b'"prompt":"', b'"prompt":" ')
        send_again(self, request, *args, **more)

    return wrong


def _explained_after(decide: Any) -> Any:
    def wrong(*args: Any, explain: Callable[[Any], None]) -> Any:
        entry = decide(*args)
        explain(entry)
        return entry

    return wrong


BUGS = (
    Bug("A file is written in place", "half visible", "promotion", Store, "write_bytes", _in_place),
    Bug("DONE comes first", "half visible", "promotion", Store, "publish_folder", _done_first),
    Bug(
        "Promoted, then registered", "champion", "promotion", registry, "register", _promoted_first
    ),
    Bug("A full disk is ignored", "lost", "sampling", Store, "write_table", _silent),
    Bug(
        "Two starts decide twice",
        *("doubled", "promotion", registry, "_repeats"),
        lambda _: lambda *_: False,
    ),
    Bug(
        "Two starts register at once",
        *("lost", "promotion", registry, "alone"),
        lambda _: lambda _: contextlib.nullcontext(),
    ),
    Bug("The page comes last", "lost", "promotion", registry, "decide", _explained_after),
    Bug(
        "A failed request is forgotten",
        *("endless", "sampling", Dispatcher, "_send_again"),
        lambda _: lambda *_, **__: None,
    ),
    Bug("A retry asks otherwise", "different", "sampling", Dispatcher, "_send_again", _reworded),
    Bug(
        "The disk's errors are not explained",
        *("unexplained", "promotion", Store, "explained"),
        lambda _: lambda *_: contextlib.nullcontext(),
    ),
)


def find(bug: Bug, most: int = 400) -> tuple[int, BrokenError] | None:
    """The first night that sees a bug, and what it says; None if none of so many does."""
    right = getattr(bug.place, bug.function)
    play(0, KINDS[bug.kind])  # the undisturbed night is made without the bug
    with patch.object(bug.place, bug.function, bug.make(right)):
        for seed in range(most):
            try:
                play(seed, KINDS[bug.kind])
            except BrokenError as error:
                if error.invariant == bug.invariant:
                    return seed, error
    return None
