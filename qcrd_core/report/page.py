"""The HTML report: one file, without scripts, that loads nothing from anywhere.

The layout is `page.html.jinja`, the style `page.css`. The template engine escapes every value, and
characters that could hide or reorder text are made visible.
"""

import shlex
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from markupsafe import Markup

from qcrd_core.evaluation import CONFIDENCE
from qcrd_core.report import charts, summary
from qcrd_core.report.data import RunData, collect_run
from qcrd_core.report.html import PAGE_CSS, templates
from qcrd_core.report.teachers import HEADINGS, NOTE, teacher_report
from qcrd_core.report.text import clip, teacher_names
from qcrd_core.run.paths import RunPaths
from qcrd_core.store.store import Store

VOTE_ROWS = (
    ("num_questions", "questions voted on"),
    ("num_questions_without_rationale", "questions without a rationale"),
    ("num_samples", "samples"),
    ("num_failed", "failed requests"),
    ("num_unparsable", "samples without a readable answer"),
    ("unparsable_share", "share of samples without a readable answer"),
    ("num_verifier_failed", "of them texts on which the verifier failed"),
    ("num_thought_only", "samples that are only a thought, without an answer"),
    ("num_cut_at_max_tokens", "samples cut at teacher.max_new_tokens"),
    ("num_ties", "ties"),
    ("num_abstained", "questions on which the vote abstained"),
    ("mean_agreement", "mean agreement"),
    ("num_questions_with_gold", "questions with a gold answer"),
    ("sample_accuracy", "accuracy of single samples"),
    ("majority_accuracy", "accuracy of the majority (abstained counts as wrong)"),
    ("majority_accuracy_decided", "accuracy of the majority (abstained left out)"),
)
"""The counts of `vote_summary`, in reading order, with their labels."""
_ONLY_SOMETIMES = frozenset({"num_verifier_failed"})
"""Of them, those that are measured for some kinds of answers alone."""
CONDENSE_ROWS = (
    ("num_kept", "rationales that the student may learn from"),
    ("num_long", "of them longer than the limit"),
    ("num_condensed", "rewritten"),
    ("num_other_answer", "rewrite refused: another answer"),
    ("num_no_answer", "rewrite refused: no readable answer"),
    ("num_empty", "rewrite refused: nothing but the answer"),
    ("num_too_long", "rewrite refused: still longer than the limit"),
    ("num_failed", "failed requests"),
    ("num_not_asked", "not asked, because the rationale has no answer"),
    ("kept_answer_share", "rewrites that kept their answer"),
    ("num_tokens", "tokens sampled for rewrites"),
    ("mean_tokens_before", "mean tokens of rewritten rationales, before"),
    ("mean_tokens_after", "mean tokens of rewritten rationales, after"),
)
"""The counts of `summarize_condensed`, in reading order, with their labels."""

_HERE = Path(__file__).parent
_NUM_EXAMPLES = 5
_NUM_EACH_SIDE = 3
_NUM_CONDENSED = 3


def vote_rows(numbers: Collection[str]) -> list[tuple[str, str]]:
    """The rows of VOTE_ROWS that a run has.

    Args:
        numbers: Names of what its vote measured.
    """
    return [row for row in VOTE_ROWS if row[0] not in _ONLY_SOMETIMES or row[0] in numbers]


@dataclass(frozen=True)
class Example:
    """A training question with rationales of both polarities, which are rows of table `scores`."""

    question: str
    gold_answer: str | None
    majority_answer: str | None
    positives: list[dict[str, Any]]
    negatives: list[dict[str, Any]]


def write_report(store: Store, run_id: str) -> str:
    """Write a run's `report.html`, and replace an earlier one.

    Args:
        store: The store that holds the run.
        run_id: The run's id.

    Returns:
        Path of the page in the store.

    Raises:
        StoreError: If there is no such run, or the store cannot be written.
        DataError: If a table of the run is damaged.
    """
    data = collect_run(store, run_id)
    rel = RunPaths(run_id).report
    store.write_bytes(rel, render(data).encode())
    return rel


def render(data: RunData) -> str:
    """Render a run as HTML.

    Args:
        data: The run's data.

    Returns:
        The page.
    """
    return templates(_HERE).get_template("page.html.jinja").render(_context(data))


def examples(data: RunData) -> list[Example]:
    """Choose a few questions with rationales of both polarities, spread evenly over their ids.

    Returns:
        At most five questions, each with the highest-scored rationales of both polarities.
    """
    scores = data.first_scores if data.last_scores.is_empty() else data.last_scores
    both = scores.group_by("question_id").agg(
        pl.col("polarity").n_unique().alias("sides"),
        (pl.col("source") == "student").any().alias("has_student"),
    )
    both = both.filter(pl.col("sides") == 2).sort("question_id")
    with_student = both.filter("has_student")
    ids = (both if with_student.is_empty() else with_student)["question_id"].to_list()
    chosen = ids[:: max(1, len(ids) // _NUM_EXAMPLES)][:_NUM_EXAMPLES]
    return [_example(data, scores, question_id) for question_id in chosen]


def _example(data: RunData, scores: pl.DataFrame, question_id: str) -> Example:
    rows = scores.filter(pl.col("question_id") == question_id).sort(
        "quality_score", "sample_idx", descending=[True, False]
    )

    def side(polarity: str) -> list[dict[str, Any]]:
        chosen = rows.filter(pl.col("polarity") == polarity).head(_NUM_EACH_SIDE)
        return [
            {**row, "rationale": clip(row["rationale"])} for row in chosen.iter_rows(named=True)
        ]

    question = data.questions.filter(pl.col("question_id") == question_id)
    majority = data.votes.filter(pl.col("question_id") == question_id)
    return Example(
        question=clip(question["question"][0]) if question.height else question_id,
        gold_answer=question["gold_answer"][0] if question.height else None,
        majority_answer=majority["majority_answer"][0] if majority.height else None,
        positives=side("positive"),
        negatives=side("negative"),
    )


def condensed_examples(data: RunData) -> list[dict[str, Any]]:
    """A few rewrites that count beside their originals, spread evenly over the table."""
    ok = data.condensed.filter(pl.col("verdict") == "ok").sort("question_id", "sample_idx")
    chosen = ok.gather_every(max(1, ok.height // _NUM_CONDENSED)).head(_NUM_CONDENSED)
    return [
        {**row, "original": clip(row["original"]), "rationale": clip(row["rationale"])}
        for row in chosen.iter_rows(named=True)
    ]


def next_commands(data: RunData) -> list[tuple[str, str]]:
    """Useful commands for this run, as pairs of (purpose, command)."""
    if summary.chosen_round(data) is None:
        return []
    command = f"qcrd predict {shlex.quote(data.student)} FILE"
    return [("Answer the questions of a file with the student", command)]


def _context(data: RunData) -> dict[str, Any]:
    chosen = summary.chosen_round(data)
    rounds = summary.round_numbers(data)
    slices = summary.accuracy_by_template(data)
    first, last = data.first_scores, data.last_scores
    return {
        "css": Markup(PAGE_CSS),  # our own file, so it needs no escaping
        "data": data,
        "teacher": ", ".join(teacher_names(data.config.teachers)),
        "teachers": teacher_report(data.metrics, data.config.teachers, data.config.voting.weights),
        "teacher_headings": HEADINGS,
        "teacher_note": NOTE,
        "confidence": CONFIDENCE,
        "test": summary.student_accuracy(data.test),
        "scores_of_parts": summary.scores_of_parts(data.metrics),
        "chosen": chosen,
        "chosen_accuracy": next((r.validation_accuracy for r in rounds if r.round == chosen), None),
        "vote": (vote := summary.vote_numbers(data)),
        "vote_rows": vote_rows(vote),
        "warnings": summary.run_warnings(data),
        "condense": summary.last_values(data.metrics, "condense"),
        "condense_rows": CONDENSE_ROWS,
        "condensed_examples": condensed_examples(data),
        "rounds": rounds,
        "validation_chart": charts.validation_chart(data.metrics, CONFIDENCE),
        "loss_chart": charts.loss_chart(data.metrics),
        "hinge_chart": charts.hinge_chart(data),
        "discriminator_chart": charts.discriminator_chart(data),
        "score_charts": [
            (int(scores["round"][0]), charts.score_chart(scores))
            for scores in (first, last)
            if not scores.is_empty()
        ],
        "reliability_chart": charts.reliability_chart(data.test, CONFIDENCE),
        "risk_chart": charts.risk_chart(data.test),
        "confidence_text": summary.confidence_text(data),
        "template_chart": charts.template_chart(slices),
        "examples": examples(data),
        "prompt": _prompt(data.environment.get("first_prompt")),
        "environment": _flat(data.environment),
        "timings": summary.timings(data),
        "servers": summary.servers(data),
        "left_out": summary.last_values(data.metrics, "data"),
        "commands": next_commands(data),
    }


def _prompt(prompt: str | list[dict[str, str]] | None) -> list[tuple[str, str]]:
    """Pairs of (role, text), one per chat message. A completions prompt gets the role "text"."""
    if prompt is None:
        return []
    if isinstance(prompt, str):
        return [("text", prompt)]
    return [(message["role"], message["content"]) for message in prompt]


def _flat(content: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in content.items():
        if not prefix and key == "first_prompt":
            continue
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", "none" if value is None else str(value)))
    return rows
