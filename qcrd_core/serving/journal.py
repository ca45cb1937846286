"""Rows that a server has promised to keep and that are not in the store yet, on this machine.

    journal = Journal.of(store)
    journal.add([Entry("captured", "pens", question_id, row)])    on the disk when it returns
    journal.move(write)                    hands batches to `write`, and forgets those that it took

A part of the store holds many rows, so a server writes one only every 30 s. Until then the rows are
here, in an SQLite file in the scratch folder, which survives `kill -9` and a loss of power. A batch
is sealed, then written, then forgotten. If a kill comes between, the same rows are written once
more under the same name, because a part is named after its keys.
"""

import contextlib
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from qcrd_core.errors import StoreError
from qcrd_core.ids import content_hash
from qcrd_core.runtime.lock import lock
from qcrd_core.store.store import Store

Write = Callable[[str, str, list[dict[str, Any]]], None]
"""(kind, data set, rows): writes a part of the store."""

_WAIT_SECONDS = 10.0
"""For another server of this machine, which holds the file for milliseconds."""
_LAYOUT = """
CREATE TABLE IF NOT EXISTS entries (
    kind TEXT NOT NULL, dataset TEXT NOT NULL, key TEXT NOT NULL, content TEXT NOT NULL,
    is_sealed INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (kind, dataset, key)
)
"""
_ADD = "INSERT OR IGNORE INTO entries (kind, dataset, key, content) VALUES (?, ?, ?, ?)"
_PLACES = "SELECT DISTINCT kind, dataset FROM entries"
_ALL = "SELECT content FROM entries WHERE kind = ? AND dataset = ? ORDER BY key"
_SEAL = "UPDATE entries SET is_sealed = 1 WHERE kind = ? AND dataset = ?"
_SEALED = "SELECT content FROM entries WHERE kind = ? AND dataset = ? AND is_sealed ORDER BY key"
_FORGET = "DELETE FROM entries WHERE kind = ? AND dataset = ? AND is_sealed"


@dataclass(frozen=True)
class Entry:
    """A row of one table."""

    kind: str
    """Name of the table."""
    dataset: str
    key: str
    """Its primary key as one text. Of two entries with the same key the first one stays."""
    row: dict[str, Any]
    """Its columns. `created_at` is a time; all others are values that JSON can hold."""


class Journal:
    """The file. Threads of a process and servers of a machine may use it at the same time."""

    def __init__(self, path: Path) -> None:
        """Open the file, and make it if it is absent.

        Args:
            path: Its path.

        Raises:
            StoreError: If it is damaged or cannot be made.
        """
        self._path, self._alone = path, threading.Lock()
        with self._explained("opened"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)  # questions may be personal; SQLite's other files follow
            self._connection = sqlite3.connect(path, timeout=_WAIT_SECONDS, check_same_thread=False)
            with self._connection as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute(_LAYOUT)
        self._run(_SEALED, "", "")  # finds a file of another layout

    @classmethod
    def of(cls, store: Store) -> Self:
        """Open the journal of a store on this machine.

        Args:
            store: Where the rows belong in the end.

        Returns:
            The journal, with what killed servers left in it.

        Raises:
            StoreError: If it is damaged or cannot be made.
        """
        return cls(store.scratch / "captured" / f"{content_hash(store.url())}.sqlite")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def add(self, entries: Sequence[Entry]) -> None:
        """Keep entries. They are on the disk when this returns.

        Args:
            entries: What to keep.

        Raises:
            StoreError: If the file cannot be written; then none of them is kept.
        """
        rows = [(one.kind, one.dataset, one.key, _to_text(one.row)) for one in entries]
        with self._explained("written"), self._connection as connection:
            connection.executemany(_ADD, rows)

    def read(self, kind: str, dataset: str) -> list[dict[str, Any]]:
        """Read the rows that are not in the store yet.

        Args:
            kind: Name of the table.
            dataset: Name of the data set.

        Returns:
            Rows by key.

        Raises:
            StoreError: If the file cannot be read.
        """
        return self._rows(_ALL, kind, dataset)

    def move(self, write: Write) -> None:
        """Hand over everything, as one batch per table and data set.

        Args:
            write: Takes a batch. It is forgotten when this returns; if it raises, the batch waits
                for the next time.

        Raises:
            StoreError: If the file cannot be read or written.
        """
        with lock(self._path.with_suffix(".lock")):  # one server at a time
            for kind, dataset in self._run(_PLACES):
                self._hand_over(kind, dataset, write)  # what a killed server had sealed
                self._run(_SEAL, kind, dataset)
                self._hand_over(kind, dataset, write)

    def _hand_over(self, kind: str, dataset: str, write: Write) -> None:
        sealed = self._rows(_SEALED, kind, dataset)
        if sealed:
            write(kind, dataset, sealed)
            self._run(_FORGET, kind, dataset)

    def _rows(self, statement: str, kind: str, dataset: str) -> list[dict[str, Any]]:
        found = self._run(statement, kind, dataset)
        with self._explained("read"):
            return [_from_text(text) for (text,) in found]

    def _run(self, statement: str, *values: str) -> list[tuple[Any, ...]]:
        with self._explained("used"), self._connection as connection:
            return connection.execute(statement, values).fetchall()

    @contextlib.contextmanager
    def _explained(self, action: str) -> Iterator[None]:
        """Let one thread in; a failing disk or damaged content is a StoreError."""
        try:
            with self._alone:
                yield
        except (OSError, sqlite3.Error, ValueError, KeyError, TypeError) as error:
            msg = (
                f"The journal of captured questions {self._path} could not be {action}: {error}. "
                "Check the disk. If the file is damaged, move it away: it holds only what the "
                "store does not have yet."
            )
            raise StoreError(msg) from error


def _to_text(row: dict[str, Any]) -> str:
    return json.dumps({**row, "created_at": row["created_at"].isoformat()})


def _from_text(text: str) -> dict[str, Any]:
    row = json.loads(text)
    return {**row, "created_at": datetime.fromisoformat(row["created_at"])}
