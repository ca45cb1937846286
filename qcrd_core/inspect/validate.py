"""Check a whole store: schemas, keys, unknown questions, hashes, and parts of generations.

    report = validate_store(store)
    repair(store, report.findings)

Repair loses nothing: it deletes temporary files that no process has touched for an hour, and moves
damaged parts of generations to `quarantine/`. The next run samples the missing rows again, or the
next import brings them back. A person must decide about everything else.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeVar

import polars as pl

from data_schemas import (
    Captured,
    Condensed,
    Curation,
    Feedback,
    Metrics,
    Polarity,
    Predictions,
    Questions,
    Rationales,
    Scores,
    Table,
    Votes,
)
from qcrd_core.config.models import ImportedModel
from qcrd_core.errors import DataError, QcrdError, StoreAwayError
from qcrd_core.ids import fingerprint
from qcrd_core.inspect.completeness import Counts, missing_from_run
from qcrd_core.inspect.view import Generation, View
from qcrd_core.registry import registry
from qcrd_core.run.paths import RunPaths
from qcrd_core.run.records import Environment, read_environment, read_run_config, record_problems
from qcrd_core.store.store import DONE, Store, StoredFile, part_name, temporaries
from qcrd_core.teacher.generation import rationales_folder, read_identity

_Read = TypeVar("_Read")
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
    counts = {
        generation.folder: _check_generation(
            store, generation, known.get(generation.dataset, set()), report
        )
        for generation in view.generations
    }
    for generation in view.rewrites:
        # A rewrite's id names the rationale that it condenses, not a question of a table.
        _check_generation(store, generation, set(), report)
    for dataset in store.list("datasets"):
        _read(store, f"datasets/{dataset}/curation", Curation, report)
        _read(store, f"datasets/{dataset}/captured", Captured, report)
        _read(store, f"datasets/{dataset}/feedback", Feedback, report)
    for run_id in store.list("runs"):
        _check_run(store, RunPaths(run_id), counts, report)
    for model in registry.model_names(store):
        _check_model(store, model, report)
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
        frame = _read(view.store, paths.questions, Questions, report)
        environment = _try(report, paths.environment, read_environment, view.store, run_id)
        if environment is not None:
            known.setdefault(environment.dataset, set()).update(frame["question_id"])
    for dataset in view.store.list("datasets"):
        frame = _read(view.store, f"datasets/{dataset}/questions", Questions, report)
        known.setdefault(dataset, set()).update(frame["question_id"])
    return known


def _check_generation(
    store: Store, generation: Generation, known: set[str], report: StoreReport
) -> Counts:
    """Check a generation; returns how many rationales of each question it holds."""
    path = f"{generation.folder}/generation.json"
    if not store.exists(path):
        problem = "has no generation.json. Import or sample it again"
        report.findings.append(Finding(generation.folder, problem))
    else:
        identity = _try(report, path, read_identity, store, generation.folder)
        found = generation.fingerprint if identity is None else fingerprint(identity)
        if found != generation.fingerprint:
            problem = f"has the fingerprint {found}, but its folder is named "
            report.findings.append(Finding(path, problem + generation.fingerprint))
    seen: list[pl.Series] = []
    counts: Counter[str] = Counter()
    for file in store.part_files(generation.folder):
        frame = _read_part(store, file.path, Rationales, report, repair="quarantine")
        if frame is not None:
            report.findings += _part_findings(file.path, frame, generation, known)
            seen.append(frame.select(pl.struct(_KEYS).hash()).to_series())
            counts.update(dict(frame.group_by("question_id").len().iter_rows()))
    if seen:
        keys = pl.concat(seen)
        num_twice = len(keys) - keys.n_unique()
        if num_twice:
            problem = f"holds {num_twice:,} duplicate rows; remove them with `qcrd compact`"
            report.findings.append(Finding(generation.folder, problem))
    return counts


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


def _check_run(
    store: Store, paths: RunPaths, counts: Mapping[str, Counts], report: StoreReport
) -> None:
    if not store.exists(paths.config):
        report.findings.append(Finding(paths.root, "has no config.yaml"))
        return
    _try(report, paths.config, read_run_config, store, paths.run_id)
    for path, problem in record_problems(store, paths.run_id):
        _note(Finding(path, problem), report)
    environment = _try(report, paths.environment, read_environment, store, paths.run_id)
    if environment is not None:
        dataset = environment.dataset
        for generation in environment.generations(None):
            if not store.exists(f"{rationales_folder(dataset)}/generation={generation}"):
                problem = f"names generation {generation} of {dataset}, which is not in the store"
                report.findings.append(Finding(paths.environment, problem))
    ids = set(_read(store, paths.questions, Questions, report)["question_id"])
    _read(store, paths.metrics, Metrics, report)
    tables: tuple[tuple[str, type[Table]], ...] = (
        (paths.feedback, Feedback),
        (paths.votes, Votes),
        (paths.polarity, Polarity),
        (paths.condensed, Condensed),
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
    # Damaged files were named above; the whole is compared only if each of its files can be read.
    is_readable = not any(each.path.startswith(paths.root) for each in report.findings)
    if is_readable and environment is not None and store.exists(paths.result):
        stored = _stored(store, paths, environment, counts)
        missing = _try(report, paths.root, lambda: list(missing_from_run(store, paths, stored)))
        for path, problem in missing or ():
            _note(Finding(path, problem), report)


def _stored(
    store: Store, paths: RunPaths, environment: Environment, counts: Mapping[str, Counts]
) -> Counts | None:
    """Stored rationales of each question, of all teachers; None if one's generation is unknown."""
    model = read_run_config(store, paths.run_id).teacher.model
    names = environment.generations(model.generation if isinstance(model, ImportedModel) else None)
    folder = f"{rationales_folder(environment.dataset)}/generation="
    found = [counts.get(f"{folder}{name}") for name in names]
    total: Counter[str] = Counter()
    for each in found:
        if each is None:
            return None
        total.update(each)
    return total if found else None


def _check_model(store: Store, model: str, report: StoreReport) -> None:
    """Check a model's versions, and that its champion is one of them."""
    folder = f"models/{model}"
    for name in registry.version_names(store, model):
        place = f"{folder}/{name}"
        version = _try(report, f"{place}/version.json", registry.find_version, store, model, name)
        _try(report, f"{place}/test", registry.test_answers, store, model, name)
        if version is not None:
            _try(report, f"{place}/run/config.yaml", registry.version_config, store, version)
    rel = f"{folder}/{registry.CHAMPION}"
    champion = _try(report, rel, registry.read_champion, store, model)
    chosen = None if champion is None else champion.version
    if chosen is not None and not store.is_published(f"{folder}/{chosen}"):
        _note(Finding(rel, f"names version {chosen}, which is not in the store"), report)


def _check_published(
    store: Store, found: Sequence[StoredFile], report: StoreReport
) -> Iterator[Finding]:
    for rel in (file.path for file in found if file.path.rpartition("/")[2] == DONE):
        folder = rel.rpartition("/")[0]
        hashes = _try(report, rel, store.read_done, folder)
        if hashes is not None:
            report.num_hashed += len(hashes)
            yield from _try(report, folder, _changed, store, folder) or ()


def _changed(store: Store, folder: str) -> list[Finding]:
    return [Finding(path, problem) for path, problem in store.changed_files(folder)]


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
        _note(Finding(rel, _problem(error, rel), repair), report)
        return None
    report.num_parts += 1
    report.num_rows += frame.height
    return frame


def _try(
    report: StoreReport, rel: str, read: Callable[..., _Read], *arguments: Any
) -> _Read | None:
    """Read something; None, and a finding about `rel`, if that fails."""
    try:
        return read(*arguments)
    except StoreAwayError:
        raise
    except QcrdError as error:
        _note(Finding(rel, _problem(error, rel)), report)
        return None


def _note(finding: Finding, report: StoreReport) -> None:
    """Add a finding, unless its file has one: the first names the cause."""
    if finding.path not in {known.path for known in report.findings}:
        report.findings.append(finding)


def _problem(error: QcrdError, rel: str) -> str:
    first = str(error).splitlines()[0].rstrip(".")
    return first.partition(f"{rel} ")[2] or first
