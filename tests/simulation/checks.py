"""What must hold at every moment of a night, and at its end."""

import hashlib
import json
from collections import Counter
from functools import cache
from typing import Any

import pyarrow as pa

from data_schemas import TABLES, SchemaMismatchError
from qcrd_core.store import store
from qcrd_core.store.store import DONE

_TABLES = {table.table_name: table for table in TABLES}
# What a clock may change without harm.
_FREE = ("environment.json", "decision.md")

LOST = "lost"
DOUBLED = "doubled"
DIFFERENT = "different"
HALF_VISIBLE = "half visible"
CHAMPION = "champion"
ENDLESS = "endless"
UNEXPLAINED = "unexplained"

_known_as_whole: set[tuple[str, bytes]] = set()


class BrokenError(AssertionError):
    """An invariant does not hold."""

    def __init__(self, invariant: str, detail: str) -> None:
        super().__init__(f"{invariant}: {detail}")
        self.invariant = invariant


def check_now(files: dict[str, bytes]) -> None:
    """What must hold at every moment."""
    for path, content in files.items():
        _check_whole(files, path, content)
    for path in files:
        if path.endswith("/champion.json"):
            _check_champion(files, path)


def _check_whole(files: dict[str, bytes], path: str, content: bytes) -> None:
    name = path.rpartition("/")[2]
    if name == DONE:
        _check_folder(files, path.removesuffix(f"/{DONE}"))
    if (path, content) in _known_as_whole:
        return
    try:
        if name.endswith(".parquet"):
            load(path, content)
        elif name.endswith(".json") or name == DONE:
            json.loads(content)
    except (SchemaMismatchError, ValueError) as error:
        raise BrokenError(HALF_VISIBLE, f"{path}: {error}") from error
    _known_as_whole.add((path, content))


def _check_folder(files: dict[str, bytes], folder: str) -> None:
    try:
        hashes = json.loads(files[f"{folder}/{DONE}"])
    except ValueError as error:
        raise BrokenError(HALF_VISIBLE, f"{folder}/{DONE}: {error}") from error
    for name, digest in hashes.items():
        content = files.get(f"{folder}/{name}", b"")
        if _digest(content) != digest:
            raise BrokenError(HALF_VISIBLE, f"{folder}/{name} is not what {DONE} says")


@cache
def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _check_champion(files: dict[str, bytes], path: str) -> None:
    version = json.loads(files[path])["champion"]
    folder = f"{path.rpartition('/')[0]}/{version}"
    wanted = (DONE, "version.json", "weights", "test/questions.parquet", "test/predictions.parquet")
    missing = [name for name in wanted if f"{folder}/{name}" not in files]
    if version is not None and missing:
        raise BrokenError(CHAMPION, f"{folder} lacks {', '.join(missing)}")


def load(path: str, content: bytes) -> Any:
    """A visible part as a frame, by the table that its path names."""
    parts = path.split("/")
    name = next((part for part in reversed(parts[:-1]) if part in _TABLES), None)
    name = name or parts[-1].removesuffix(".parquet")
    name = {"negatives": "rationales"}.get(parts[2], name)
    return store.load_part(pa.BufferReader(content), _TABLES[name], path)


def check_end(files: dict[str, bytes], wanted: dict[str, bytes], *, is_double: bool) -> None:
    """What must hold when everybody has ended: the tables of an undisturbed night.

    Args:
        files: The store.
        wanted: The store after an undisturbed night.
        is_double: Whether several processes sampled; a late part may then repeat rows of another.
    """
    here, there = (_samples(each, is_double=is_double) for each in (files, wanted))
    for key in sorted(here.keys() | there.keys()):
        if key not in here:
            raise BrokenError(LOST, f"sample {key}")
        if not here[key] <= there.get(key, set()):
            raise BrokenError(DIFFERENT, f"sample {key}")
    for path in sorted(_rest(wanted) - _rest(files)):
        raise BrokenError(LOST, path)
    for path in sorted(_rest(files) - _rest(wanted)):
        raise BrokenError(DOUBLED, path)
    for path in sorted(_rest(wanted)):
        is_fixed = path.startswith("runs/") and not path.endswith(_FREE)
        if is_fixed and files[path] != wanted[path]:
            raise BrokenError(DIFFERENT, path)
        if path.endswith("champion.json"):
            check_history(files[path], json.loads(wanted[path])["history"])


def check_history(content: bytes, wanted: list[dict[str, Any]]) -> None:
    """Each decision is there, once."""
    here, there = (
        Counter((entry["action"], entry["version"]) for entry in entries)
        for entries in (json.loads(content)["history"], wanted)
    )
    for kind, wrong in ((LOST, there - here), (DOUBLED, here - there)):
        if wrong:
            raise BrokenError(kind, f"decisions {sorted(wrong)}")


def _rest(files: dict[str, bytes]) -> set[str]:
    return {
        path
        for path in files
        if "/metrics/timing-" not in path and ("/generation=" not in path or path.endswith(".json"))
    }


def _samples(files: dict[str, bytes], *, is_double: bool) -> dict[tuple[str, int], set[Any]]:
    """The rows of each sample; more than one only if its copies differ."""
    found: dict[tuple[str, int], set[Any]] = {}
    for path, content in files.items():
        if "/generation=" in path and path.endswith(".parquet"):
            frame = load(path, content)
            keys = frame.select("question_id", "sample_idx").rows()
            rows = frame.drop("created_at", "run_id").rows()
            for key, row in zip(keys, rows, strict=True):
                if key in found and not is_double:
                    raise BrokenError(DOUBLED, f"sample {key}")
                found.setdefault(key, set()).add(row)
    return found
