"""Check a whole store: schemas, keys, unknown questions, hashes, and parts of generations.

    report = validate_store(store)
    repair(store, report.findings)

Repair loses nothing: it deletes temporary files that no process has touched for an hour, and moves
damaged parts of generations to `quarantine/`. The next run samples the missing rows again, or the
next import brings them back. A person must decide about everything else.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

import polars as pl
import yaml

from data_schemas import (
    Curation,
    Metrics,
    Polarity,
    Predictions,
    Questions,
    Rationales,
    Scores,
    Table,
    Votes,
)
from qcrd_core.errors import DataError, QcrdError, StoreAwayError
from qcrd_core.ids import bytes_hash, fingerprint
from qcrd_core.inspect.view import Generation, View
from qcrd_core.run.paths import RunPaths
from qcrd_core.store.store import DONE, Store, StoredFile, part_name, temporaries

_QUARANTINE = "quarantine"
_KEYS = ("question_id", "sample_idx", "prompt_hash")
_RESTING = timedelta(hours=1)


@dataclass(frozen=True)
class Finding:
    """A problem in a store."""

    path: str
    problem: str
    repair: Literal["delete", "quarantine"] | None = None
    """How `repair` solves it; None if a person must decide."""


@dataclass
class StoreReport:
    """What was checked, and the problems found."""

    num_parts: int = 0
    num_rows: int = 0
    num_hashed: int = 0
    """Number of files in published folders whose hash was compared."""
    findings: list[Finding] = field(default_factory=list)


def validate_store(store: Store) -> StoreReport:
    """Read everything in a store, and check it against the store's rules.

    Args:
        store: The store.

    Returns:
        Counts and findings, sorted by path.

    Raises:
        StoreError: If the store does not answer.
    """
    report = StoreReport()
    view = View(store, None)
    files = store.files("")
    report.findings += _temporaries(files)
    known = _known_questions(view, report)
    for generation in view.generations:
        _check_generation(store, generation, known.get(generation.dataset, set()), report)
    for dataset in store.list("datasets"):
        _read(store, f"datasets/{dataset}/curation", Curation, report)
    for run_id in store.list("runs"):
        _check_run(store, RunPaths(run_id), report)
    report.findings += _check_published(store, files, report)
    report.findings.sort(key=lambda finding: finding.path)
    return report


def repair(store: Store, findings: list[Finding]) -> list[Finding]:
    """Repair the findings that can be repaired without losing anything.

    Args:
        store: The store.
        findings: From `validate_store`.

    Returns:
        The findings that were repaired.

    Raises:
        StoreError: If the store refuses to write or delete.
    """
    done = []
    for finding in findings:
        if finding.repair == "quarantine":
            store.write_bytes(f"{_QUARANTINE}/{finding.path}", store.read_bytes(finding.path))
        if finding.repair is not None:
            store.delete(finding.path)
            done.append(finding)
    return done


def _temporaries(files: Sequence[StoredFile]) -> Iterator[Finding]:
    for rel, left in temporaries(files).items():
        # The age of a folder is that of its newest file: its own time stays while files in it grow.
        if datetime.now(UTC) - max(file.modified for file in left) > _RESTING:
            yield Finding(rel, "is a leftover of a killed process", "delete")


def _known_questions(view: View, report: StoreReport) -> dict[str, set[str]]:
    """Ids of all questions that any table of the store holds, by data set."""
    known: dict[str, set[str]] = {}
    for run_id in view.run_ids:
        paths = RunPaths(run_id)
        dataset = _json(view.store, paths.environment, report).get("dataset")
        frame = _read(view.store, paths.questions, Questions, report)
        if isinstance(dataset, str):
            known.setdefault(dataset, set()).update(frame["question_id"])
    for dataset in view.store.list("datasets"):
        frame = _read(view.store, f"datasets/{dataset}/questions", Questions, report)
        known.setdefault(dataset, set()).update(frame["question_id"])
    return known


def _check_generation(
    store: Store, generation: Generation, known: set[str], report: StoreReport
) -> None:
    path = f"{generation.folder}/generation.json"
    if not store.exists(path):
        problem = "has no generation.json. Import or sample it again"
        report.findings.append(Finding(generation.folder, problem))
    elif (found := fingerprint(_json(store, path, report))) != generation.fingerprint:
        problem = f"has the fingerprint {found}, but its folder is named {generation.fingerprint}"
        report.findings.append(Finding(path, problem))
    seen: list[pl.Series] = []
    for file in store.part_files(generation.folder):
        frame = _read_part(store, file.path, Rationales, report, repair="quarantine")
        if frame is not None:
            report.findings += _part_findings(file.path, frame, generation, known)
            seen.append(frame.select(pl.struct(_KEYS).hash()).to_series())
    if seen:
        keys = pl.concat(seen)
        num_twice = len(keys) - keys.n_unique()
        if num_twice:
            problem = f"holds {num_twice:,} duplicate rows; remove them with `qcrd compact`"
            report.findings.append(Finding(generation.folder, problem))


def _part_findings(
    rel: str, frame: pl.DataFrame, generation: Generation, known: set[str]
) -> Iterator[Finding]:
    foreign = frame.filter(pl.col("generation") != generation.fingerprint).height
    if foreign:
        yield Finding(rel, f"holds {foreign:,} rows of another generation")
    names = {part_name(frame.select(_KEYS)), part_name(frame.select(_KEYS[:2]))}
    if rel.rpartition("/")[2] not in names:
        yield Finding(rel, "does not have the name that follows from its keys")
    orphans = frame.filter(~pl.col("question_id").is_in(list(known)))["question_id"].unique().sort()
    if known and len(orphans):
        yield Finding(
            rel, f"holds rationales of {len(orphans):,} unknown questions (first: {orphans[0]})"
        )


def _check_run(store: Store, paths: RunPaths, report: StoreReport) -> None:
    if not store.exists(paths.config):
        report.findings.append(Finding(paths.root, "has no config.yaml"))
        return
    try:
        yaml.safe_load(store.read_bytes(paths.config))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        detail = " ".join(str(error).split())
        report.findings.append(Finding(paths.config, f"is not valid YAML: {detail}"))
    environment = _json(store, paths.environment, report)
    generation, dataset = environment.get("generation"), environment.get("dataset")
    if generation and not store.exists(f"datasets/{dataset}/rationales/generation={generation}"):
        problem = f"names generation {generation} of {dataset}, which is not in the store"
        report.findings.append(Finding(paths.environment, problem))
    ids = set(_read(store, paths.questions, Questions, report)["question_id"])
    _read(store, paths.metrics, Metrics, report)
    tables: tuple[tuple[str, type[Table]], ...] = (
        (paths.votes, Votes),
        (paths.polarity, Polarity),
        (f"{paths.root}/scores", Scores),
        (f"{paths.root}/negatives", Rationales),
        (f"{paths.root}/predictions", Predictions),
    )
    for rel, table in tables:
        for file in store.part_files(rel):
            frame = _read_part(store, file.path, table, report)
            if frame is None:
                continue
            orphans = sorted(set(frame["question_id"]) - ids)
            if orphans:
                problem = f"holds {len(orphans):,} questions that are not in the run"
                report.findings.append(Finding(file.path, f"{problem} (first: {orphans[0]})"))


def _check_published(
    store: Store, found: Sequence[StoredFile], report: StoreReport
) -> Iterator[Finding]:
    files = {file.path for file in found}
    for rel in sorted(path for path in files if path.rpartition("/")[2] == DONE):
        folder = rel.rpartition("/")[0]
        hashes = _json(store, rel, report)
        for name, digest in hashes.items():
            path = f"{folder}/{name}"
            if path not in files:
                yield Finding(path, f"is missing, although {DONE} lists it")
            elif bytes_hash(store.read_bytes(path)) != digest:
                yield Finding(path, f"was changed: its hash differs from the one in {DONE}")
            report.num_hashed += 1


def _read(store: Store, rel: str, table: type[Table], report: StoreReport) -> pl.DataFrame:
    """Rows of all parts that can be read."""
    frames = [_read_part(store, file.path, table, report) for file in store.part_files(rel)]
    return pl.concat([table.create_empty(), *(frame for frame in frames if frame is not None)])


def _read_part(
    store: Store,
    rel: str,
    table: type[Table],
    report: StoreReport,
    *,
    repair: Literal["quarantine"] | None = None,
) -> pl.DataFrame | None:
    try:
        frame = store.read_table(rel, table)
    except StoreAwayError:
        raise
    except QcrdError as error:
        if not isinstance(error, DataError):
            repair = None  # the part could not be read, but may be undamaged
        if rel not in {finding.path for finding in report.findings}:
            problem = str(error).removeprefix(f"{store}/{rel} ").rstrip(".")
            report.findings.append(Finding(rel, problem, repair))
        return None
    report.num_parts += 1
    report.num_rows += frame.height
    return frame


def _json(store: Store, rel: str, report: StoreReport) -> dict[str, object]:
    try:
        content = store.read_json(rel)
    except StoreAwayError:
        raise
    except QcrdError as error:
        problem = str(error).removeprefix(f"{store}/{rel} ").rstrip(".")
        if rel not in {finding.path for finding in report.findings}:
            report.findings.append(Finding(rel, problem))
        return {}
    return content if isinstance(content, dict) else {}
