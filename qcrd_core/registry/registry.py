"""Students under a model's name: versions, the champion, and the history of decisions.

    models/<name>/<version>/        a run's student, its model card and its test answers
    models/<name>/champion.json     the champion and the whole history, newest entry last

    version = register(store, run_id)
    entry = decide(store, version.model, version.name, config.promotion)
    entry = rollback(store, "quickstart", "worse on invoices")

`champion.json` is written in one put, so on any store the champion and the history change together
or not at all. A version is a copy of its run's student and does not need the run any more.

Limits: writers on one machine wait for each other. If two machines decide at the same moment, the
later entry replaces the earlier one, so let one machine decide (for example a deployment that is
limited to one run).
"""

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import polars as pl
import pyarrow as pa
from pydantic import Field

from data_schemas import Predictions, Questions, write_part
from qcrd_core.config.base import Name
from qcrd_core.config.operations import PromotionSection
from qcrd_core.config.run import RunConfig, read_stored_config
from qcrd_core.errors import ConfigError, StoreError
from qcrd_core.registry.card import model_card
from qcrd_core.registry.promotion import Comparison, Decision, compare, frozen_answers
from qcrd_core.report.data import RunData, collect_run
from qcrd_core.report.summary import student_accuracy
from qcrd_core.run.paths import RunPaths
from qcrd_core.store.filesystem import alone
from qcrd_core.store.store import DONE, Store

logger = logging.getLogger(__name__)

Action = Literal["promoted", "kept", "rolled back"]
PROMOTED: Action = "promoted"
KEPT: Action = "kept"
ROLLED_BACK: Action = "rolled back"
CARD, CHAMPION = "README.md", "champion.json"

_ROOT = "models"
_METADATA = "version.json"
_QUESTIONS, _PREDICTIONS = "test/questions.parquet", "test/predictions.parquet"


@dataclass(frozen=True)
class Version:
    """One student under a model's name."""

    model: Name
    name: Name
    run_id: Name
    """Run that trained it."""
    created_at: str
    """When it was registered, UTC, ISO 8601."""
    accuracy: float | None
    """Accuracy on its run's test split; None without gold answers."""
    num_test: Annotated[int, Field(ge=0)]
    """Number of test questions with a gold answer."""
    warm_start: Name | None = None
    """Version whose weights training started from; None if it started from the settings' ones."""

    @property
    def folder(self) -> str:
        """Its published folder, relative to the store's root."""
        return f"{_ROOT}/{self.model}/{self.name}"


@dataclass(frozen=True)
class Entry:
    """One decision."""

    at: str
    """UTC, ISO 8601."""
    action: Action
    """promoted, kept (the champion stays) or rolled back."""
    version: Name
    """The version in question: newly promoted, not promoted, or restored by a rollback."""
    previous: Name | None
    """The champion before."""
    reasons: tuple[str, ...]
    """The reasons, as sentences."""
    comparison: Comparison | None = None
    """Numbers behind the decision."""


@dataclass(frozen=True)
class Champion:
    """The content of `champion.json`."""

    version: Annotated[Name | None, Field(validation_alias="champion")]
    """None before the first promotion."""
    history: tuple[Entry, ...]
    """Every decision, oldest first."""

    def latest(self, version: str) -> Entry | None:
        """The newest decision about a version."""
        return next((entry for entry in self.history[::-1] if entry.version == version), None)


def model_names(store: Store) -> list[str]:
    """Names of models that have versions, sorted."""
    return store.list(_ROOT)


def versions(store: Store, model: str) -> list[Version]:
    """Finished versions of a model, oldest first.

    Raises:
        StoreError: If the store does not answer.
    """
    found = [_read_version(store, model, name) for name in version_names(store, model)]
    return sorted(found, key=lambda version: (version.created_at, version.name))


def version_names(store: Store, model: str) -> list[str]:
    """Names of the finished versions of a model, sorted."""
    names = store.list(f"{_ROOT}/{model}")
    return [name for name in names if _is_there(store, model, name)]


def find_version(store: Store, model: str, name: str) -> Version:
    """Read one version.

    Raises:
        ConfigError: If there is no such version.
    """
    if not _is_there(store, model, name):
        known = ", ".join(version.name for version in versions(store, model)) or "none"
        msg = f"{store} has no version {model}/{name}. Versions of {model}: {known}."
        raise ConfigError(msg)
    return _read_version(store, model, name)


def version_name(run_id: str) -> str:
    """Name of the version that a run makes: the hash in the run's name."""
    return run_id.rpartition("-")[2]


def version_config(store: Store, version: Version) -> RunConfig:
    """Settings of the run that made a version.

    Raises:
        StoreError: If the version's files are damaged.
    """
    rel = f"{version.folder}/run/config.yaml"
    return read_stored_config(store.read_bytes(rel), f"{store}/{rel}")


def register(
    store: Store, run_id: str, *, name: str | None = None, warm_start: str | None = None
) -> Version:
    """Make a version from a complete run's student. Registering it again changes nothing.

    Args:
        store: The store that holds the run.
        run_id: The run; its name becomes the model's name.
        name: Name of the version; by default taken from the run's id.
        warm_start: Version whose weights the run started from.

    Returns:
        The version.

    Raises:
        StoreError: If the run is absent or not complete, or the store cannot be written.
        DataError: If a table of the run is damaged.
    """
    data, paths = collect_run(store, run_id), RunPaths(run_id)
    if not store.exists(paths.result):
        msg = f"Run {run_id} is not complete. Finish it before you register its student."
        raise StoreError(msg)
    model, name = data.config.run.name, name or version_name(run_id)
    # Two starts of a night may end at once. Both would copy into one folder, and a version that the
    # first has published must not be replaced.
    with alone(store.local(f"{_ROOT}/{model}/{name}")):
        if _is_there(store, model, name):
            return _read_version(store, model, name)
        return _publish(store, data, name, warm_start)


def read_champion(store: Store, model: str) -> Champion:
    """Read a model's champion and history; both are empty before the first decision.

    Raises:
        StoreError: If the file is damaged, or the store does not answer.
    """
    rel = _champion_file(model)
    if not store.exists(rel):
        return Champion(None, ())
    return store.read_json(rel, Champion)


def decide(
    store: Store,
    model: str,
    name: str,
    rule: PromotionSection,
    *,
    explain: Callable[[Entry], None] = lambda _: None,
) -> Entry:
    """Compare a version with the champion; promote it if the rule says so.

    Args:
        store: The store.
        model: The model's name.
        name: The challenger.
        rule: Section `promotion`.
        explain: Receives the entry before it is stored.

    Returns:
        The entry that was added. For the champion itself nothing is added, and its newest entry is
        returned. The same if it is not promoted again for the same reasons.

    Raises:
        ConfigError: If there is no such version.
        StoreError: If the champion's folder is missing.
        DataError: If a table is damaged.
    """
    challenger = find_version(store, model, name)

    def make(champion: Champion) -> Entry:
        old = None if champion.version is None else test_answers(store, model, champion.version)
        decision = compare(old, test_answers(store, model, challenger.name), rule)
        action = PROMOTED if decision.promote else KEPT
        return _entry(action, name, champion.version, decision)

    return _update(store, model, name, make, explain)


def promote(store: Store, model: str, name: str, reason: str) -> Entry:
    """Make a version the champion by a person's decision.

    Args:
        store: The store.
        model: The model's name.
        name: The version.
        reason: Why, as a sentence for the history.

    Returns:
        The entry. As with `decide`, nothing is added for the champion itself.

    Raises:
        ConfigError: If there is no such version.
    """
    find_version(store, model, name)
    decision = Decision(promote=True, reasons=(f"By hand: {reason}",), comparison=None)
    return _update(
        store,
        model,
        name,
        lambda champion: _entry(PROMOTED, name, champion.version, decision),
    )


def rollback(store: Store, model: str, reason: str) -> Entry:
    """Make the previous champion the champion again.

    Args:
        store: The store.
        model: The model's name.
        reason: Why, as a sentence for the history.

    Returns:
        The entry that was added.

    Raises:
        ConfigError: If there is no such model, or no earlier champion.
    """
    if model not in model_names(store):
        known = ", ".join(model_names(store)) or "none"
        msg = f"{store} has no model {model!r}. Its models: {known}."
        raise ConfigError(msg)
    with alone(store.local(_champion_file(model))):
        champion = read_champion(store, model)
        name = _before(champion)
        if name is None:
            msg = (
                f"{model} has no earlier champion to roll back to ({store}); its champion is "
                f"{champion.version or 'not chosen yet'}. Its history: `qcrd models {model}`."
            )
            raise ConfigError(msg)
        find_version(store, model, name)
        decision = Decision(promote=True, reasons=(f"By hand: {reason}",), comparison=None)
        entry = _entry(ROLLED_BACK, name, champion.version, decision)
        _write(store, model, Champion(name, (*champion.history, entry)))
    return entry


def champions(champion: Champion) -> set[str]:
    """Versions that are or were champion, which a rollback can restore."""
    names = {entry.version for entry in champion.history if entry.action != KEPT}
    return names | ({champion.version} if champion.version else set())


def _update(
    store: Store,
    model: str,
    name: str,
    make: Callable[[Champion], Entry],
    explain: Callable[[Entry], None] = lambda _: None,
) -> Entry:
    with alone(store.local(_champion_file(model))):
        champion = read_champion(store, model)
        latest = champion.latest(name)
        if latest is not None and champion.version == name:
            entry = latest
        else:
            entry = make(champion)
            if latest is not None and _repeats(entry, latest):
                entry = latest
        explain(entry)
        if entry is latest:
            return entry
        current = champion.version if entry.action == KEPT else name
        _write(store, model, Champion(current, (*champion.history, entry)))
    logger.info("%s/%s %s: %s", model, name, entry.action, " ".join(entry.reasons))
    return entry


def _repeats(entry: Entry, latest: Entry) -> bool:
    """Whether a version is not promoted again for the same reasons, as by two starts of a night."""
    dated = replace(entry, at=latest.at, comparison=latest.comparison)
    return entry.action == KEPT and dated == latest


def _write(store: Store, model: str, champion: Champion) -> None:
    content = {"champion": champion.version, "history": champion.history}
    store.write_json(_champion_file(model), content)


def _entry(action: Action, name: str, previous: str | None, decision: Decision) -> Entry:
    return Entry(_now(), action, name, previous, decision.reasons, decision.comparison)


def _before(champion: Champion) -> str | None:
    """The previous champion, by the newest promotion of the present one."""
    for entry in champion.history[::-1]:
        if entry.action == PROMOTED and entry.version == champion.version:
            return entry.previous
    return None


def _publish(store: Store, data: RunData, name: str, warm_start: str | None) -> Version:
    test = student_accuracy(data.test)
    version = Version(
        model=data.config.run.name,
        name=name,
        run_id=data.run_id,
        created_at=_now(),
        accuracy=None if test is None else test.share,
        num_test=0 if test is None else test.num_questions,
        warm_start=warm_start,
    )
    target = store.local(version.folder)
    copy = target.with_name(f"_tmp-{target.name}")
    student = store.fetch_folder(RunPaths(data.run_id).best_student, check=True)
    with store.explained(version.folder, "written"):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(student, copy, ignore=shutil.ignore_patterns(DONE))
        _describe(store, data, version, copy)
    store.publish_folder(copy, version.folder)
    logger.info("Registered %s/%s | run %s", version.model, name, data.run_id)
    return version


def _describe(store: Store, data: RunData, version: Version, folder: Path) -> None:
    """Add the model card and all that a version needs without its run to the weights' folder."""
    paths = RunPaths(data.run_id)
    metadata = json.dumps(asdict(version), indent=2)
    (folder / _METADATA).write_text(metadata + "\n", encoding="utf-8")
    (folder / CARD).write_text(model_card(data, version.name, version.warm_start), encoding="utf-8")
    for name in (paths.config, paths.environment, paths.dataset):
        target = folder / "run" / Path(name).name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(store.read_bytes(name))
    (folder / "test").mkdir(exist_ok=True)
    questions = data.questions.filter(pl.col("split") == "test")
    for frame, table, rel in (
        (questions, Questions, _QUESTIONS),
        (data.test, Predictions, _PREDICTIONS),
    ):
        with pa.OSFile(str(folder / rel), "wb") as sink:
            write_part(frame, table, sink)


def test_answers(store: Store, model: str, name: str) -> pl.DataFrame:
    """A version's answers to its test questions, for `compare`.

    Raises:
        StoreError: If the version's folder is missing or its `DONE` damaged.
        DataError: If a table is damaged.
    """
    folder = f"{_ROOT}/{model}/{name}"
    if not store.is_published(folder):
        msg = (
            f"The folder of the champion {model}/{name} is missing from {store}. Restore it, or "
            "choose another champion with `qcrd promote --anyway`."
        )
        raise StoreError(msg)
    store.read_done(folder)
    questions = store.read_table(f"{folder}/{_QUESTIONS}", Questions)
    return frozen_answers(questions, store.read_table(f"{folder}/{_PREDICTIONS}", Predictions))


def _is_there(store: Store, model: str, name: str) -> bool:
    return store.is_published(f"{_ROOT}/{model}/{name}")


def _read_version(store: Store, model: str, name: str) -> Version:
    rel = f"{_ROOT}/{model}/{name}/{_METADATA}"
    version = store.read_json(rel, Version)
    if (version.model, version.name) != (model, name):
        msg = (
            f"{store}/{rel} must describe {model}/{name}; got {version.model}/{version.name}. "
            "Restore or delete it."
        )
        raise StoreError(msg)
    return version


def _champion_file(model: str) -> str:
    return f"{_ROOT}/{model}/{CHAMPION}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
