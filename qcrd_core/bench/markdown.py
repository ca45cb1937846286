"""Render one bench as a section of Markdown."""

import re
from collections.abc import Iterator, Sequence

import polars as pl

from qcrd_core.bench.charts import plots, validation_curves
from qcrd_core.bench.results import ALL_DATA, BenchResults, compared
from qcrd_core.bench.statistics import Comparison, Summary
from qcrd_core.bench.text import (
    accuracy_text,
    difference_text,
    interval_text,
    p_text,
    plural,
)
from qcrd_core.report.markdown import table
from qcrd_core.report.text import clip, seconds, visible

_KINDS = {
    "predict": "they answer at once, without a rationale",
    "explain_then_predict": "they explain first, and the answer is read from their rationale",
    "vote_k": "they write several rationales, and the most frequent answer counts",
}
_PLOT_TEXTS = {
    "accuracy": "Test accuracy by method, with intervals",
    "shares": "Test accuracy by the share of the training questions",
    "validation": "Validation accuracy by round",
}


def section(results: BenchResults, plot_folder: str | None = None) -> str:
    """Render one bench.

    Args:
        results: The bench.
        plot_folder: Folder of its plots, relative to the document; None leaves the plots out.

    Returns:
        Markdown that begins with a heading of the second level.
    """
    drawn = plots(results) if plot_folder else {}
    images = {name: f"![{_PLOT_TEXTS[name]}]({plot_folder}/{name}.svg)" for name in drawn}
    blocks = [
        f"## {_text(results.description.name)}",
        _facts(results),
        results.description.notes.strip(),
        *_accuracy(results, images.get("accuracy")),
        *_compared(results),
        *_shares(results, images.get("shares")),
        *_learning(results, images.get("validation")),
        *_cost(results),
        *_failures(results),
        *_mcnemar(results),
        *_settings(results),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _facts(results: BenchResults) -> str:
    described, cells = results.description, results.cells.filter(pl.col("share") == ALL_DATA)
    counts = [
        f"{_numbers(cells['num_train'])} training and {_numbers(cells['num_test'])} test questions",
        f"{_numbers(cells['num_steps'])} optimiser steps per run",
        plural(results.cells["seed"].n_unique(), "seed"),
        f"all intervals at {described.confidence:.0%}",
    ]
    dataset, machine = _code(described.dataset), _text(described.machine)
    lines = [f"Data set {dataset}: {', '.join(counts)}. Made on: {machine}."]
    lines += [f"- {_code(name)}: {_text(text)}" for name, text in described.methods.items()]
    return lines[0] + "\n\n" + "\n".join(lines[1:])


def _accuracy(results: BenchResults, image: str | None) -> Iterator[str | None]:
    described = results.description
    yield "### Accuracy"
    yield image
    keys = [(method, ALL_DATA) for method in described.methods]
    head = ["method", "seeds", "accuracy, %", f"{described.confidence:.0%} interval"]
    body = [[_code(method), *_row(results, method, share)] for method, share in keys]
    yield table([*head, *_reference_heads(described.references)], body)
    num_compared = sum(found.interval is not None for found in _pairs(results))
    if num_compared > 1:
        by_chance = num_compared * (1 - described.confidence)
        yield (
            f"{num_compared} comparisons were made. If no method differed, up to about "
            f"{by_chance:.1f} of them would be bold by chance."
        )


def _compared(results: BenchResults) -> Iterator[str | None]:
    other = compared(results)
    if other is None:
        return
    _, _, *blocks = _accuracy(other, None)
    kind = other.cells["compared"].drop_nulls()[0]
    yield f"### Accuracy by `{kind}`"
    yield f"The same students, tested in another way: {_KINDS[kind]}."
    yield from blocks


def _shares(results: BenchResults, image: str | None) -> Iterator[str | None]:
    described = results.description
    keys = [
        (share, method)
        for share in results.shares
        for method in described.share_methods
        if (method, share) in results.summaries
    ]
    if len(results.shares) < 2:
        return
    references = [name for name in described.references if name in described.share_methods]
    yield "### Share of the training questions"
    yield image
    head = ["share", "questions", "method", "seeds", "accuracy, %"]
    head += [f"{described.confidence:.0%} interval", *_reference_heads(references)]
    body = []
    for share, method in keys:
        cells = results.cells.filter(pl.col("share") == share, pl.col("method") == method)
        row = _row(results, method, share, references)
        body.append([f"{share:.0%}", _numbers(cells["num_train"]), _code(method), *row])
    yield table(head, body)


def _row(
    results: BenchResults, method: str, share: float, references: Sequence[str] | None = None
) -> list[str]:
    references = results.description.references if references is None else references
    summary = results.summaries.get((method, share))
    row = [_seeds(summary), accuracy_text(summary), interval_text(summary)]
    for reference in references:
        comparison = results.comparisons.get((method, reference, share))
        if method == reference:
            row += ["reference", ""]
        elif comparison is None:
            row += ["no common seed", "-"]
        else:
            text = difference_text(comparison)
            if summary and 1 < len(comparison.seeds) < len(summary.accuracies):
                text += f", {len(comparison.seeds)} common seeds"
            row += [
                f"**{text}**" if comparison.is_significant else text,
                p_text(comparison.t_test_p),
            ]
    return row


def _seeds(summary: Summary | None) -> str:
    if summary is None:
        return "0"
    failed = f" ({summary.num_failed} failed)" if summary.num_failed else ""
    return f"{len(summary.accuracies)}{failed}"


def _pairs(results: BenchResults) -> list[Comparison]:
    """Comparisons on all data. Two references are compared both ways; only one is kept."""
    pairs: dict[frozenset[str], Comparison] = {}
    order = list(results.description.methods)
    for reference in results.description.references:
        for method in order:
            found = results.comparisons.get((method, reference, ALL_DATA))
            if found is not None:
                pairs.setdefault(frozenset({method, reference}), found)
    return list(pairs.values())


def _reference_heads(references: Sequence[str]) -> list[str]:
    return [head for name in references for head in (f"minus {_code(name)}, points", "p")]


def _learning(results: BenchResults, image: str | None) -> Iterator[str | None]:
    if image is None:
        return
    yield "### Learning"
    yield image
    shown = validation_curves(results)
    cells = results.cells.filter(pl.col("status") == "ok", pl.col("share") == ALL_DATA)
    longest = cells.group_by("method").agg(pl.col("validation_accuracy").list.len().max())
    cut = [name for name, most in sorted(longest.iter_rows()) if most > len(shown[name])]
    if cut:
        names = ", ".join(_code(name) for name in cut)
        yield f"The curves of {names} leave out rounds that only some seeds have."


def _cost(results: BenchResults) -> Iterator[str]:
    yield "### Cost"
    yield (
        "Means over seeds. Time is that of the student's stages, without the teacher. Tokens are "
        "sampled tokens. Active hinges: share of questions whose negative is inside the margin. "
        "AUC: how often the discriminator of the last round scores a positive above a negative "
        "(polarity), or a right rationale above a wrong one (right); 0.5 is chance."
    )
    head = ["method", "time per run", "steps", "teacher's tokens", "student's tokens"]
    head += ["peak memory", "active hinges", "negatives right", "AUC, polarity", "AUC, right"]
    measured = results.cells.filter(pl.col("status") == "ok", pl.col("share") == ALL_DATA)
    body = []
    for method in results.description.methods:
        cells = measured.filter(pl.col("method") == method)
        memory = _mean(cells, "peak_memory_bytes")
        time = _mean(cells, "seconds")
        counts = ("num_steps", "num_teacher_tokens", "num_student_tokens")
        body.append(
            [
                _code(method),
                "-" if time is None else seconds(time),
                *(_format(_mean(cells, name), ",.0f") for name in counts),
                "-" if memory is None else f"{memory / 2**30:.2f} GiB",
                _format(_mean(cells, "active_hinge_share"), ".1%"),
                _format(_mean(cells, "negatives_right_share"), ".1%"),
                _format(_mean(cells, "auc_polarity"), ".2f"),
                _format(_mean(cells, "auc_correct"), ".2f"),
            ]
        )
    yield table(head, body)


def _failures(results: BenchResults) -> Iterator[str]:
    failed = results.cells.filter(pl.col("status") == "failed").sort("method", "share", "seed")
    yield "### Failed cells"
    if failed.is_empty():
        yield f"None of {results.cells.height}."
        return
    yield f"{failed.height} of {results.cells.height}."
    body = [
        [_code(row["method"]), f"{row['share']:.0%}", str(row["seed"]), _text(clip(row["error"]))]
        for row in failed.iter_rows(named=True)
    ]
    yield table(["method", "share", "seed", "error"], body)


def _mcnemar(results: BenchResults) -> Iterator[str]:
    found = _pairs(results)
    if not found:
        return
    head = ["method", "reference", "seed", "only method right", "only reference right", "p"]
    body = [
        [
            *(_code(item.method), _code(item.reference), str(test.seed)),
            *(str(test.num_only_method), str(test.num_only_reference), p_text(test.p)),
        ]
        for item in found
        for test in item.mcnemar
    ]
    yield _details("McNemar's exact test per seed", table(head, body))


def _settings(results: BenchResults) -> Iterator[str]:
    described = results.description
    body = []
    for method in described.methods:
        texts = results.cells.filter(pl.col("method") == method)["settings"].unique().sort()
        body.append([_code(method), " or ".join(_code(text) for text in texts) or "-"])
    fence = "`" * (1 + max([2, *map(len, re.findall("`+", described.config))]))
    config = f"{fence}yaml\n{visible(described.config).rstrip()}\n{fence}"
    methods = table(["method", "settings"], body)
    yield _details("Settings", f"{methods}\n\nSettings that all methods share:\n\n{config}")


def _details(title: str, content: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{content}\n\n</details>"


def _code(text: str) -> str:
    """Text from outside as code, without the backticks and bars that would end it."""
    shown = " ".join(visible(text).split()).replace("`", "'").replace("|", "\\|")
    return f"`{shown}`"


def _text(text: str) -> str:
    """Text from outside on one line, escaped for Markdown and HTML."""
    return re.sub(r"([\\`*_\[\]<>|#~$&])", r"\\\1", " ".join(visible(text).split()))


def _numbers(values: pl.Series) -> str:
    """The value that all cells share, or the lowest and the highest value."""
    known = values.drop_nulls().unique().sort().to_list()
    if not known:
        return "unknown"
    return f"{known[0]:,}" if len(known) == 1 else f"{known[0]:,} to {known[-1]:,}"


def _mean(cells: pl.DataFrame, name: str) -> float | None:
    values = cells[name].drop_nulls().cast(pl.Float64).to_list()
    return sum(values) / len(values) if values else None


def _format(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
