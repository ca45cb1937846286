"""Which shard a sampler takes next, where several samplers fill one generation.

They know of each other by the generation's folder alone: it holds the parts that are stored, and a
note `_tmp-taken-<part>` for each shard that somebody has begun. Each sampler plans by the same
anti-join, goes through the shards in a random order of its own, looks into the folder now and then
and for each shard before it begins it, and takes those that nobody has begun. When only begun ones
are left it takes these too, a few at a time: whoever began them may be dead, or about to finish.

A note is no lock: nobody waits for it, it needs no clock, and a stale one only puts its shard last.
So two samplers ask the same for at most the shards in flight at the end, and for a shard that both
begin within milliseconds. The first to finish stores the part, the other lets go.
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

_NOTE = "_tmp-taken-"  # hidden from readers; the janitor takes what nobody came back to
_PART = ".parquet"
_LOOK_FACTOR = 20
"""A look into the folder is good for so many times as long as it took."""
_KEYS = ("question_id", "sample_idx", "prompt_hash")
_SPENT = ("run_id", "num_prompt_tokens", "num_tokens")


class SharedShards:
    """The shards of one plan as this sampler and others take them."""

    def __init__(
        self,
        store: Store,
        plan: SamplingPlan,
        shards: Sequence[Shard],
        *,
        run_id: str,
        meter: Meter,
    ) -> None:
        """Begin with nothing taken.

        Args:
            store: The store.
            plan: Where the shards belong.
            shards: Those to be sampled.
            run_id: The run that pays for them.
            meter: Where it has a limit, what other samplers of the run take is counted too.
        """
        self._store, self._folder = store, plan.folder
        self._run_id, self._meter = run_id, meter
        # Two samplers that begin together must not go side by side.
        self._todo = {shard.part: shard for shard in random.sample(shards, len(shards))}
        self._mine: dict[str, Shard] = {}
        self._begun: set[str] = set()
        self._taken_over: set[str] = set()
        self._num_to_take_over = 1
        self._seen = set(plan.parts)
        self._look_at = 0.0
        self._lock = threading.Lock()
        self.num_left = sum(len(shard.keys) for shard in shards)
        """Samples that are not stored, as far as this sampler knows."""

    def look(self) -> list[str]:
        """See what others have stored and begun since the last look. May run in a thread.

        Returns:
            Parts of shards in this sampler's hands that they have stored.

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
                if shard is not None:  # else this sampler has laid it down meanwhile
                    self._drop(shard, ())
            for frame in frames:
                self._subtract(frame)
            lost = sorted(mine - self._mine.keys())
            if not self._taken_over.isdisjoint(lost):
                self._num_to_take_over = 1
                self._taken_over.difference_update(lost)
            return lost

    def take(self, most: int) -> list[Shard]:
        """Take shards that nobody has begun; where there are none, a few that others have.

        Args:
            most: How many at most.

        Returns:
            Shards, now in this sampler's hands. None when all are stored or in its hands, or as
            long as it should be content with what it has taken over.
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

    def begin(self, shard: Shard) -> bool:
        """Tell others of a shard that was taken. May run in a thread.

        Args:
            shard: A shard in this sampler's hands.

        Returns:
            False where another sampler has begun or stored it since the last look: it is out of
            this sampler's hands again.

        Raises:
            StoreError: If the store does not answer or refuses the note.
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

    def forget(self, shard: Shard) -> None:
        """Take back what `begin` said. May run in a thread."""
        # A note that stays harms nothing: it puts a shard last, or its part is there.
        with suppress(StoreError):
            self._store.delete(_note(self._folder, shard))

    def may_store(self, shard: Shard, name: str) -> bool:
        """Ask, with a part at hand, whether it is still wanted. May run in a thread.

        Args:
            shard: A shard in this sampler's hands.
            name: Of the part: other than the shard's where the budget has ended.

        Returns:
            False where another sampler was first.

        Raises:
            StoreError: If the store does not answer.
        """
        with self._lock:
            if shard.part not in self._mine:
                return False
            self._seen.add(name)  # not to be taken for another sampler's
        return not self._store.exists(f"{self._folder}/{name}")

    def finish(self, shard: Shard, num_rows: int | None) -> None:
        """Lay down a shard.

        Args:
            shard: A shard in this sampler's hands.
            num_rows: Of its part, fewer than the shard has keys where the budget has ended; None
                where another sampler was first.
        """
        with self._lock:
            if self._mine.pop(shard.part, None) is None:
                return  # a look found it stored by another sampler
            self.num_left -= len(shard.keys) if num_rows is None else num_rows
            if shard.part in self._taken_over:
                self._taken_over.remove(shard.part)
                # Else whoever began it is slower than this sampler, or gone.
                self._num_to_take_over = 1 if num_rows is None else 2 * self._num_to_take_over

    def _put_back(self, shard: Shard) -> None:
        self._taken_over.discard(shard.part)
        if self._mine.pop(shard.part, None) is not None:
            self._todo[shard.part] = shard

    def _read(self, name: str) -> pl.DataFrame:
        """Keys and tokens of another sampler's part, or of a joined one."""
        path = f"{self._folder}/{name}"
        lazy = scan_parts(self._store, [path], Rationales).select(*_KEYS, *_SPENT)
        try:
            return collect(lazy, f"{self._store}/{path}")
        except DataError:
            if self._store.exists(path):
                raise
            # It was joined with others, and the next look finds the large part.
            return Rationales.create_empty().select(*_KEYS, *_SPENT)

    def _subtract(self, rows: pl.DataFrame) -> None:
        """Leave out what a part holds, however it was cut: by other shards, by `qcrd compact`."""
        if rows.is_empty():
            return
        found = {row[:3]: row[3:] for row in rows.iter_rows()}
        ids = rows["question_id"].to_list()
        low, high = min(ids), max(ids)
        for shard in [*self._todo.values(), *self._mine.values()]:
            if shard.keys[-1][0] < low or shard.keys[0][0] > high:
                continue
            rest = tuple(key for key in shard.keys if key not in found)
            # One in this sampler's hands is stored whole: without a part of it nothing is saved.
            if len(rest) == len(shard.keys) or (rest and shard.part in self._mine):
                continue
            self._drop(shard, rest)
            for run_id, *tokens in (found[key] for key in shard.keys if key in found):
                if run_id == self._run_id:
                    self._meter.add(*(number or 0 for number in tokens))

    def _drop(self, shard: Shard, rest: tuple[SampleKey, ...]) -> None:
        """Leave a shard to the others, but for some of its keys."""
        self._todo.pop(shard.part, None)
        self._mine.pop(shard.part, None)
        self.num_left -= len(shard.keys) - len(rest)
        if rest:
            name = part_name(pl.DataFrame(rest, schema=_KEYS, orient="row"))
            self._todo[name] = Shard(part=name, keys=rest)


def _note(folder: str, shard: Shard) -> str:
    return f"{folder}/{_NOTE}{shard.part.removesuffix(_PART)}"
