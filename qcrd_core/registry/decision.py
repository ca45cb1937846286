"""A promotion decision as a page of Markdown, for the Prefect UI and the run's folder."""

import shlex
from typing import TYPE_CHECKING

from qcrd_core.registry.promotion import Comparison
from qcrd_core.report.markdown import cell, table

if TYPE_CHECKING:  # a real import would be circular, because the registry imports this package
    from qcrd_core.registry.registry import Entry, Version
    from qcrd_core.store.store import Store


def decision_page(version: "Version", entry: "Entry", news: str, store: "Store") -> str:
    """Explain a night's decision.

    Args:
        version: The student that was registered.
        entry: The decision about it.
        news: What was new, as a sentence.
        store: The store that holds the version.

    Returns:
        Markdown.
    """
    model, name, place = version.model, version.name, shlex.quote(store.url())
    title = {
        "promoted": f"{name} is now the champion of {model}",
        "kept": f"{entry.previous} stays the champion of {model}"
        if entry.previous
        else f"{model} has no champion yet",
    }.get(entry.action, f"{name} of {model}: {entry.action}")
    start = f"version {version.warm_start}" if version.warm_start else "student.model"
    parts = [
        f"# {title}",
        news,
        "## Why",
        "\n".join(f"- {reason}" for reason in entry.reasons),
    ]
    if entry.comparison is not None:
        parts += ["## By slice", _slices(entry.comparison)]
    parts += [
        "## Where",
        f"- student and model card: `{store}/{version.folder}`\n"
        f"- run and report: `{store}/runs/{version.run_id}`\n"
        f"- training started from: {start}\n"
        f"- champion before: {entry.previous or 'none'}",
    ]
    overrule = _overrule(version, entry, place)
    if overrule is not None:
        parts.append(f"To overrule this: `{overrule}`.")
    return "\n\n".join(parts) + "\n"


def _overrule(version: "Version", entry: "Entry", place: str) -> str | None:
    """The command that undoes the decision; None if the first champion was promoted."""
    if entry.action == "kept":
        return f"qcrd promote {version.model}/{version.name} --store {place} --anyway REASON"
    if entry.previous is None:
        return None
    return f"qcrd rollback {version.model} --store {place} --reason REASON"


def _slices(comparison: Comparison) -> str:
    rows = []
    for part in (comparison.whole, *comparison.slices):
        total, was, now = part.num_questions, part.champion_correct, part.challenger_correct
        shares = (f"{was / total:.1%}", f"{now / total:.1%}")
        gain = f"{100 * (now - was) / total:+.1f} points"
        rows.append((cell(part.name), f"{total:,}", *shares, gain))
    return table(("test questions", "of", "champion right", "challenger right", "gain"), rows)
