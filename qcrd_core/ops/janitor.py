"""Find and delete old runs, unused samples and leftovers, in a store and its scratch folder.

    waste = find_waste(store, scratch, Retention())      only reads
    print(waste_table(waste))
    remove(store, waste)

It finds old runs, students that were never champion, generations of samples that no run uses any
more, temporary files of killed writers, and logs and copies of old runs. It never deletes a version
that is or was champion, the run of such a version, `champion.json`, imported rationales, questions,
prepared teachers, anything that a process works on, or anything that changed recently.
"""

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import Field

from qcrd_core.config.base import MAX_COUNT, Section
from qcrd_core.registry import registry
from qcrd_core.run.locks import is_worked_on
from qcrd_core.run.paths import RunPaths
from qcrd_core.run.records import read_environment
from qcrd_core.runtime.processes import TEMPORARY
from qcrd_core.store.store import Store, StoredFile, temporaries
from qcrd_core.teacher.generation import (
    CONDENSES,
    condensed_folder,
    rationales_folder,
    read_identity,
)
from qcrd_core.teacher.generation import FILE as GENERATION_FILE

_TEMPORARY_AGE = timedelta(days=1)


class Retention(Section):
    """What must not be deleted."""

    days: int = Field(default=30, ge=1, le=36_500)
    """Keep everything that was written within this many days."""
    keep_runs: int = Field(default=3, ge=0, le=MAX_COUNT)
    """Keep this many newest runs and versions of each name, however old they are."""


@dataclass(frozen=True)
class Waste:
    """One folder or file that can be deleted."""

    kind: str
    """run, version, generation, temporary or scratch."""
    path: str
    """Relative to the store's root; for scratch, a local path."""
    why: str
    num_bytes: int
    modified: datetime
    """Newest file in it, UTC."""


def find_waste(
    store: Store, scratch: Path, retention: Retention, now: datetime | None = None
) -> list[Waste]:
    """Find what can be deleted. Changes nothing.

    Args:
        store: The store.
        scratch: Setting `run.scratch` of the runs on this machine.
        retention: What must not be deleted.
        now: Current time; tests set it.

    Returns:
        Waste, sorted by kind and path. No item lies inside another item.

    Raises:
        StoreError: If the store does not answer.
    """
    now = now or datetime.now(UTC)
    old = now - timedelta(days=retention.days)
    runs = list(_runs(store, scratch, retention, old))
    found = [
        *runs,
        *_versions(store, retention, old),
        *_generations(store, {waste.path for waste in runs}, old),
        *_scratch(store, scratch, old),
    ]
    folders = tuple(f"{waste.path}/" for waste in found if waste.kind != "scratch")
    found += [
        waste
        for waste in _temporaries(store, now - _TEMPORARY_AGE)
        if not waste.path.startswith(folders)
    ]
    return sorted(found, key=lambda waste: (waste.kind, waste.path))


def remove(store: Store, waste: Iterable[Waste]) -> int:
    """Delete what `find_waste` found, except versions that became champion in between.

    Args:
        store: The store.
        waste: From `find_waste`.

    Returns:
        Bytes freed.

    Raises:
        StoreError: If the store refuses to delete.
    """
    num_bytes = 0
    for item in waste:
        if item.kind == "scratch":
            shutil.rmtree(item.path) if Path(item.path).is_dir() else Path(item.path).unlink()
        elif item.kind == "version" and _is_of_history(store, item.path):
            continue
        else:
            store.delete(item.path)
        num_bytes += item.num_bytes
    return num_bytes


def waste_table(waste: list[Waste]) -> str:
    """Format waste as a table with a total."""
    lines = [
        f"  {item.kind:<11} {megabytes(item.num_bytes):>11}  {item.modified:%Y-%m-%d}  "
        f"{item.path}\n  {'':<37}{item.why}"
        for item in waste
    ]
    total = sum(item.num_bytes for item in waste)
    return "\n".join([*lines, f"  {'total':<11} {megabytes(total):>11}"])


def megabytes(num_bytes: int) -> str:
    """A size as text."""
    return f"{num_bytes / 1e6:,.1f} MB"


def _runs(store: Store, scratch: Path, retention: Retention, old: datetime) -> Iterator[Waste]:
    kept = _runs_of_champions(store)
    by_name: dict[str, list[Waste]] = {}
    for run_id in store.list("runs"):
        waste = _sum_up("run", f"runs/{run_id}", store.files(f"runs/{run_id}"))
        if waste is not None:
            by_name.setdefault(run_id.rpartition("-")[0], []).append(waste)
    for runs in by_name.values():
        newest_first = sorted(runs, key=lambda waste: waste.modified, reverse=True)
        for number, waste in enumerate(newest_first):
            run_id = waste.path.removeprefix("runs/")
            if number < retention.keep_runs or waste.modified >= old or run_id in kept:
                continue
            if is_worked_on(scratch, run_id):
                continue
            is_complete = store.exists(RunPaths(run_id).result)
            state = "complete" if is_complete else "unfinished"
            why = f"{state}, never champion, newer runs of the same name: {number}"
            yield _because(waste, why)


def _runs_of_champions(store: Store) -> set[str]:
    return {
        version.run_id
        for model in registry.model_names(store)
        for version in registry.versions(store, model)
        if version.name in registry.champions(registry.read_champion(store, model))
    }


def _versions(store: Store, retention: Retention, old: datetime) -> Iterator[Waste]:
    for model in registry.model_names(store):
        kept = registry.champions(registry.read_champion(store, model))
        newest_first = registry.versions(store, model)[::-1]
        for number, version in enumerate(newest_first):
            waste = _sum_up("version", version.folder, store.files(version.folder))
            if waste is None or number < retention.keep_runs or version.name in kept:
                continue
            if waste.modified < old:
                yield _because(waste, f"never champion, newer versions: {number}")


def _is_of_history(store: Store, folder: str) -> bool:
    _, model, name = folder.split("/")
    return name in registry.champions(registry.read_champion(store, model))


def _generations(store: Store, removed_runs: set[str], old: datetime) -> Iterator[Waste]:
    used = {
        generation
        for run_id in store.list("runs")
        if f"runs/{run_id}" not in removed_runs
        and (environment := read_environment(store, run_id)) is not None
        for generation in environment.generations(None)
    }
    for dataset in store.list("datasets"):
        found = []
        for name in store.list(rationales_folder(dataset)):
            folder = f"{rationales_folder(dataset)}/{name}"
            waste = _sum_up("generation", folder, store.files(folder))
            is_sampled = store.exists(f"{folder}/{GENERATION_FILE}") and (
                read_identity(store, folder).get("source") != "imported"
            )
            if waste is not None and is_sampled:
                found.append((name.partition("=")[2], waste))
        newest = max((waste.modified for _, waste in found), default=old)
        for fingerprint, waste in found:
            if fingerprint not in used and waste.modified < min(old, newest):
                why = f"unused by the remaining runs; {dataset} has a newer generation"
                yield _because(waste, why)
        yield from _rewrites(store, dataset, old)


def _rewrites(store: Store, dataset: str, old: datetime) -> Iterator[Waste]:
    """Rewrites of rationales that are no longer in the store."""
    for name in store.list(condensed_folder(dataset)):
        folder = f"{condensed_folder(dataset)}/{name}"
        waste = _sum_up("generation", folder, store.files(folder))
        if (
            waste is None
            or waste.modified >= old
            or not store.exists(f"{folder}/{GENERATION_FILE}")
        ):
            continue
        of = f"generation={read_identity(store, folder).get(CONDENSES)}"
        if not store.exists(f"{rationales_folder(dataset)}/{of}"):
            yield _because(waste, f"rewrites of {of}, which is no longer in the store")


def _temporaries(store: Store, before: datetime) -> Iterator[Waste]:
    """Leftovers of killed writers: temporary names, and versions that were never published."""
    for folder, files in temporaries(store.files("")).items():
        waste = _sum_up("temporary", folder, files)
        if waste is not None and waste.modified < before:
            yield _because(waste, "temporary file of a writer that was killed")
    for model in registry.model_names(store):
        kept = registry.champions(registry.read_champion(store, model))
        for name in store.list(f"models/{model}"):
            rel = f"models/{model}/{name}"
            if name == registry.CHAMPION or name in kept or store.is_published(rel):
                continue
            waste = _sum_up("temporary", rel, store.files(rel))
            if waste is not None and waste.modified < before:
                yield _because(waste, "incomplete version; it was never published")


def _scratch(store: Store, scratch: Path, old: datetime) -> Iterator[Waste]:
    """Logs of complete or deleted runs, and local copies of an object store's folders."""
    folders = [
        (folder, "logs of a run that is complete or deleted")
        for folder in sorted(scratch.glob("runs/*"))
        if not is_worked_on(scratch, folder.name)
        and (
            store.exists(RunPaths(folder.name).result)
            or not store.exists(RunPaths(folder.name).root)
        )
    ]
    if not store.is_local:
        why = "local copy, fetched again if needed"
        folders += [(folder, why) for folder in sorted(store.local("").glob("runs/*"))]
        folders += [(folder, why) for folder in sorted(store.local("").glob("models/*/*"))]
    # Unix sockets of a server that samples for days are as old as the server.
    for path in sorted(Path(tempfile.gettempdir()).glob(f"{TEMPORARY}*")):
        if path.lstat().st_uid == os.getuid():
            folders.append((path, "left behind by a process that was killed"))
    for folder, why in folders:
        waste = _sum_up("scratch", str(folder), list(_local_files(folder)))
        if waste is not None and waste.modified < old:
            yield _because(waste, why)


def _local_files(place: Path) -> Iterator[StoredFile]:
    """Files of a folder; the place itself if it is a file or an empty folder."""
    for path in [path for path in place.rglob("*") if path.is_file()] or [place]:
        stat = path.lstat()
        yield StoredFile(str(path), stat.st_size, stat.st_mtime_ns)


def _sum_up(kind: str, path: str, files: Sequence[StoredFile]) -> Waste | None:
    if not files:
        return None
    modified = max(file.modified for file in files)
    return Waste(kind, path, "", sum(file.num_bytes for file in files), modified)


def _because(waste: Waste, why: str) -> Waste:
    return Waste(waste.kind, waste.path, why, waste.num_bytes, waste.modified)
