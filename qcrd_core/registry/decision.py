"""A promotion decision as a page of Markdown, for the Prefect UI and beside the run's report."""

import shlex
from typing import TYPE_CHECKING, Any

from qcrd_core.report.markdown import cell, table

if TYPE_CHECKING:  # the registry writes model cards, which are of this package
    from qcrd_core.registry.registry import Entry, Version
    from qcrd_core.store.store import Store


def decision_page(version: "Version", entry: "Entry", news: str, store: "Store") -> str:
    """Say what a night came to.

    Args:
        version: The student that was decided upon.
        entry: The decision.
        news: What was new, a sentence.
        store: Where the version is.

    Returns:
        Markdown.
    """
    model, name, place = version.model, version.name, shlex.quote(store.url())
    title = {
        "promoted": f"{name} is the champion of {model} now",
        "kept": f"{entry.previous or 'No version'} stays the champion of {model}",
    }.get(entry.action, f"{name} of {model}: {entry.action}")
    began = f"version {version.warm_start}" if version.warm_start else "the settings' weights"
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
        f"- it began with {began}; the champion before: {entry.previous or 'none'}",
        f"To decide otherwise: `qcrd promote {model}/{name} --store {place} --anyway REASON`, "
        f"`qcrd rollback {model} --store {place} --reason REASON`.",
    ]
    return "\n\n".join(parts) + "\n"


def _slices(comparison: dict[str, Any]) -> str:
    rows = []
    for part in (comparison["whole"], *comparison["slices"]):
        total = part["num_questions"]
        was, now = part["champion_correct"], part["challenger_correct"]
        shares = (f"{was / total:.1%}", f"{now / total:.1%}")
        gain = f"{100 * (now - was) / total:+.1f} points"
        rows.append((cell(part["name"]), f"{total:,}", *shares, gain))
    return table(("test questions", "of", "champion right", "challenger right", "gain"), rows)
