"""Shard claims: which shard a sampler takes next when several samplers fill one generation.

Samplers communicate only through the generation's folder. It holds the stored parts, and one note
`_tmp-taken-<part>` per claimed shard. All samplers plan with the same anti-join, and each goes
through the shards in its own random order. It lists the folder regularly, looks at each shard
before it begins it, and claims shards that no one else has claimed. When only claimed shards are
left, it takes over a few at a time: their samplers may be dead, or about to finish.

A claim is not a lock. Nobody waits for it, it needs no clock, and a stale claim only moves its
shard to the end. So two samplers draw the same samples only for the shards in flight at the end,
or if both claim a shard within milliseconds. The first to finish stores the part; the other one
discards its samples.
"""

import os
import random
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice

import polars as pl

from data_schemas import Rationales
from qcrd_core.errors import DataError, StoreError
from qcrd_core.store.parts import collect, scan_parts
from qcrd_core.store.store import Store, part_name
from qcrd_core.teacher.budget import Meter
from qcrd_core.teacher.plan import SampleKey, SamplingPlan, Shard

_NOTE = "_tmp-taken-"  # readers ignore this prefix, and the janitor deletes abandoned notes
_PART = ".parquet"
_LOOK_FACTOR = 20
"""A listing is reused for 20 times as long as it took, so listing costs at most 5% of the time."""
_KEYS = ("question_id", "sample_idx", "prompt_hash")
_SPENT = ("run_id", "num_prompt_tokens", "num_tokens")


class ShardClaims:
    """The shards of one plan, as this sampler and others claim them."""

    def __init__(
        self,
        store: Store,
        plan: SamplingPlan,
        shards: Sequence[Shard],
        *,
        run_id: str,
        meter: Meter,
    ) -> None:
        """Begin without claims.

        Args:
            store: The store.
            plan: The plan of the shards.
            shards: The shards to sample.
            run_id: The run that pays for them.
            meter: If it has a limit, it also counts the tokens of the run's other samplers.
        """
        self._store, self._folder = store, plan.folder
        self._run_id, self._meter = run_id, meter
        # A random order, so that samplers that start together do not race for the same shards.
        self._todo = {shard.part: shard for shard in random.sample(shards, len(shards))}
        self._mine: dict[str, Shard] = {}
        self._begun: set[str] = set()
        self._taken_over: set[str] = set()
        self._num_to_take_over = 1
        self._seen = set(plan.parts)
        self._look_at = 0.0
        self._lock = threading.Lock()
        self.num_left = sum(len(shard.keys) for shard in shards)
        """Samples that are not stored yet, as far as this sampler knows."""

    def refresh(self) -> list[str]:
        """List what others have stored and claimed since the last listing. May run in a thread.

        Returns:
            Parts that others have stored of shards that this sampler has claimed.

        Raises:
            DataError: If a part is damaged.
            StoreError: If the store does not answer.
        """
        start = time.monotonic()
        if start < self._look_at:
            return []
        names = [file.path.rpartition("/")[2] for file in self._store.files(self._folder)]
        now = time.monotonic()
        self._look_at = now + _LOOK_FACTOR * (now - start)
        with self._lock:
            notes = (name.removeprefix(_NOTE) for name in names if name.startswith(_NOTE))
            self._begun = {f"{note}{_PART}" for note in notes}
            parts = {name for name in names if name.startswith("part-") and name.endswith(_PART)}
            fresh = sorted(parts - self._seen)
            self._seen.update(fresh)
            known = self._todo.keys() | self._mine.keys()
        unread = fresh if self._meter.has_limit else [name for name in fresh if name not in known]
        frames = [self._read(name) for name in unread]
        with self._lock:
            mine = set(self._mine)
            for name in set(fresh) - set(unread):
                shard = self._todo.get(name) or self._mine.get(name)
                if shard is not None:  # else this sampler has released it since
                    self._drop(shard, ())
            for frame in frames:
                self._subtract(frame)
            lost = sorted(mine - self._mine.keys())
            if not self._taken_over.isdisjoint(lost):
                self._num_to_take_over = 1
                self._taken_over.difference_update(lost)
            return lost

    def claim(self, most: int) -> list[Shard]:
        """Claim shards that are free; if none is free, take over a few that others have claimed.

        Args:
            most: Most shards to claim.

        Returns:
            The claimed shards. Empty if all shards are stored or claimed by this sampler, or if it
            should first finish the shards it has taken over.
        """
        with self._lock:
            free = (name for name in self._todo if name not in self._begun)
            names = list(islice(free, most))
            if not names:
                most = min(most, self._num_to_take_over - len(self._taken_over))
                names = list(islice(self._todo, max(most, 0)))
                self._taken_over.update(names)
            for name in names:
                self._mine[name] = self._todo.pop(name)
            return [self._mine[name] for name in names]

    def announce(self, shard: Shard) -> bool:
        """Write the note of a claimed shard for other samplers. May run in a thread.

        Args:
            shard: A shard that this sampler has claimed.

        Returns:
            False if another sampler has claimed or stored it since the last listing; the claim is
            then released.

        Raises:
            StoreError: If the store does not answer or rejects the note.
        """
        note = _note(self._folder, shard)
        if self._store.exists(f"{self._folder}/{shard.part}"):
            rows = self._read(shard.part)
            with self._lock:
                self._seen.add(shard.part)
                self._subtract(rows)
                self._put_back(shard)
            return False
        if shard.part not in self._taken_over and self._store.exists(note):
            with self._lock:
                self._begun.add(shard.part)
                self._put_back(shard)
            return False
        self._store.write_bytes(note, f"{socket.gethostname()} {os.getpid()}\n".encode())
        return True

    def withdraw(self, shard: Shard) -> None:
        """Delete the note that `announce` wrote. May run in a thread."""
        # A leftover note is harmless: it only moves its shard to the end.
        with suppress(StoreError):
            self._store.delete(_note(self._folder, shard))

    def may_store(self, shard: Shard, name: str) -> bool:
        """Check that a finished part is still missing. May run in a thread.

        Args:
            shard: A shard that this sampler has claimed.
            name: Name of the part; it differs from the shard's if the budget cut the shard.

        Returns:
            False if another sampler has stored it first.

        Raises:
            StoreError: If the store does not answer.
        """
        with self._lock:
            if shard.part not in self._mine:
                return False
            self._seen.add(name)  # or `refresh` would take it for another sampler's part
        return not self._store.exists(f"{self._folder}/{name}")

    def release(self, shard: Shard, num_rows: int | None) -> None:
        """Release a claimed shard.

        Args:
            shard: A shard that this sampler has claimed.
            num_rows: Rows of its part, fewer than its keys if the budget cut the shard; None if
                another sampler stored it first.
        """
        with self._lock:
            if self._mine.pop(shard.part, None) is None:
                return  # `refresh` found it stored by another sampler
            self.num_left -= len(shard.keys) if num_rows is None else num_rows
            if shard.part in self._taken_over:
                self._taken_over.remove(shard.part)
                # Another sampler was first: it lives, so take over one shard at a time. Otherwise
                # it is slow or dead, so take over twice as many.
                self._num_to_take_over = 1 if num_rows is None else 2 * self._num_to_take_over

    def _put_back(self, shard: Shard) -> None:
        self._taken_over.discard(shard.part)
        if self._mine.pop(shard.part, None) is not None:
            self._todo[shard.part] = shard

    def _read(self, name: str) -> pl.DataFrame:
        """Keys and tokens of a part that another sampler stored, or that joins several parts."""
        path = f"{self._folder}/{name}"
        lazy = scan_parts(self._store, [path], Rationales).select(*_KEYS, *_SPENT)
        try:
            return collect(lazy, f"{self._store}/{path}")
        except DataError:
            if self._store.exists(path):
                raise
            # The part was joined with others; the next listing finds the large part.
            return Rationales.create_empty().select(*_KEYS, *_SPENT)

    def _subtract(self, rows: pl.DataFrame) -> None:
        """Remove the keys that a part holds, even if its boundaries are not those of a shard."""
        if rows.is_empty():
            return
        found = {row[:3]: row[3:] for row in rows.iter_rows()}
        ids = rows["question_id"].to_list()
        low, high = min(ids), max(ids)
        for shard in [*self._todo.values(), *self._mine.values()]:
            if shard.keys[-1][0] < low or shard.keys[0][0] > high:
                continue
            rest = tuple(key for key in shard.keys if key not in found)
            # A shard in flight is kept until all of it is stored: it is already being sampled.
            if len(rest) == len(shard.keys) or (rest and shard.part in self._mine):
                continue
            self._drop(shard, rest)
            for run_id, *tokens in (found[key] for key in shard.keys if key in found):
                if run_id == self._run_id:
                    self._meter.add(*(number or 0 for number in tokens))

    def _drop(self, shard: Shard, rest: tuple[SampleKey, ...]) -> None:
        """Forget a shard, except for the keys that are still missing."""
        self._todo.pop(shard.part, None)
        self._mine.pop(shard.part, None)
        self.num_left -= len(shard.keys) - len(rest)
        if rest:
            name = part_name(pl.DataFrame(rest, schema=_KEYS, orient="row"))
            self._todo[name] = Shard(part=name, keys=rest)


def _note(folder: str, shard: Shard) -> str:
    return f"{folder}/{_NOTE}{shard.part.removesuffix(_PART)}"
