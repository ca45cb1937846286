"""The commands `qcrd models`, `promote`, `rollback` and `janitor`.

    qcrd models --store STORE [NAME]
    qcrd promote RUN --store STORE              by the rule, or with --anyway REASON
    qcrd rollback NAME --store STORE --reason TEXT
    qcrd janitor --store STORE [--delete]       only lists, unless --delete is given

The nightly flow registers and promotes by itself. These commands show its decisions and let a
person decide by hand.
"""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from qcrd_core.errors import ConfigError

if TYPE_CHECKING:  # imported when needed: `qcrd --help` should not wait for polars
    from qcrd_core.registry.registry import Entry
    from qcrd_core.store.store import Store

_SCRATCH = Path(".qcrd/scratch")


def models(name: str | None = None, *, store: str) -> None:
    """List the models of a store, or one model's versions and what was decided about them.

    Args:
        name: Name of the model. By default all models are listed.
        store: Folder or URL of the store.
    """
    from qcrd_core.registry import registry
    from qcrd_core.store.store import Store

    opened = Store(store, _SCRATCH)
    names = registry.model_names(opened)
    if name is not None and name not in names:
        known = ", ".join(names) or "none"
        msg = f"{opened} has no model {name!r}. Its models: {known}."
        raise ConfigError(msg)
    for model in names if name is None else [name]:
        _show(opened, model, whole=name is not None)
    if not names:
        print(f"{opened} has no models yet.\n\nqcrd promote RUN --store {_quoted(opened)}")


def promote(run: str, *, store: str, anyway: str | None = None) -> None:
    """Register the student of a complete run, and promote it if it beats the champion.

    Args:
        run: Name of the run, or MODEL/VERSION of a student that is already registered.
        store: Folder or URL of the store.
        anyway: Promote it whatever the rule says. This text is recorded as the reason.
    """
    from qcrd_core.registry import registry
    from qcrd_core.store.store import Store

    opened = Store(store, _SCRATCH)
    model, slash, name = run.partition("/")
    version = (
        registry.find_version(opened, model, name) if slash else registry.register(opened, run)
    )
    if anyway is None:
        rule = registry.version_config(opened, version).promotion
        entry = registry.decide(opened, version.model, version.name, rule)
    else:
        entry = registry.promote(opened, version.model, version.name, anyway)
    _say(entry)
    if entry.action == registry.KEPT:
        student = f"{version.model}/{version.name}"
        print(f"\nqcrd promote {student} --store {_quoted(opened)} --anyway REASON")
    else:
        print(f"\nqcrd models {version.model} --store {_quoted(opened)}")


def rollback(name: str, *, store: str, reason: str) -> None:
    """Make the previous champion the champion again.

    Args:
        name: Name of the model.
        store: Folder or URL of the store.
        reason: Why you roll back. It is recorded in the model's history.
    """
    from qcrd_core.registry import registry
    from qcrd_core.store.store import Store

    opened = Store(store, _SCRATCH)
    _say(registry.rollback(opened, name, reason))
    print(f"\nqcrd models {name} --store {_quoted(opened)}")


def janitor(
    *,
    store: str,
    days: int = 30,
    keep_runs: int = 3,
    scratch: Path = _SCRATCH,
    delete: bool = False,
) -> None:
    """List or delete old runs, unused samples and leftovers.

    Versions that are or were champion are never deleted, and neither are their runs or anything
    written within the last --days days.

    Args:
        store: Folder or URL of the store.
        days: Keep everything that was written within this many days.
        keep_runs: Keep this many newest runs and versions of each name, however old they are.
        scratch: Local folder of logs and copies, as in the runs' setting `run.scratch`.
        delete: Delete what is listed.
    """
    from pydantic import ValidationError

    from qcrd_core.config.reading import explain
    from qcrd_core.ops.janitor import Retention, find_waste, megabytes, remove, waste_table
    from qcrd_core.store.store import Store

    try:
        retention = Retention(days=days, keep_runs=keep_runs)
    except ValidationError as error:
        raise ConfigError(explain(error, "command line")) from error
    opened = Store(store, scratch)
    waste = find_waste(opened, scratch, retention)
    print(waste_table(waste) if waste else "  Nothing to delete.")
    if delete:
        print(f"\nDeleted {megabytes(remove(opened, waste))}.")
    elif waste:
        print("\nNothing was deleted. To delete what is listed:")
        print(f"qcrd janitor --store {_quoted(opened)} --delete")


def _show(store: "Store", model: str, *, whole: bool) -> None:
    from qcrd_core.registry import registry

    champion, found = registry.read_champion(store, model), registry.versions(store, model)
    print(f"{model}: {len(found)} versions, champion {champion.version or 'none'}")
    if not whole:
        return
    for version in found:
        mark = "*" if version.name == champion.version else " "
        accuracy = "not measured" if version.accuracy is None else f"{version.accuracy:.1%}"
        latest = champion.latest(version.name)
        decided = "undecided" if latest is None else latest.action
        print(
            f"{mark} {version.name:<10} {version.created_at[:16].replace('T', ' ')}  {accuracy} of "
            f"{version.num_test:,} test questions  {decided}  {version.run_id}"
        )
    print("\nDecisions, newest first:")
    for entry in champion.history[::-1]:
        _say(entry)
    if champion.version is not None:
        student = _quoted(store, f"models/{model}/{champion.version}")
        print(f"\nqcrd predict {student} FILE.jsonl")


def _quoted(store: "Store", rel: str = "") -> str:
    return shlex.quote(store.url(rel))


def _say(entry: "Entry") -> None:
    before = f" (champion before: {entry.previous})" if entry.previous else ""
    print(f"  {entry.at[:16].replace('T', ' ')} UTC  {entry.version} {entry.action}{before}")
    for reason in entry.reasons:
        print(f"      {reason}")
