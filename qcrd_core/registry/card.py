"""The model card of a student: what it learned from, how accurate it is, where it comes from.

The card is Markdown with the front matter that the Hugging Face hub reads. It is made from the
run's tables and the configuration's section `card`. Missing entries read "not stated".
"""

from typing import Any

import yaml

from qcrd_core.evaluation import CONFIDENCE
from qcrd_core.report import summary
from qcrd_core.report.data import RunData
from qcrd_core.report.markdown import cell, table
from qcrd_core.report.text import percent, plain_name, teacher_names

_DATA_ROWS = ("num_teacher_positives", "num_teacher_negatives", "num_student_negatives")


def model_card(data: RunData, version: str, warm_start: str | None) -> str:
    """Write a student's card.

    Args:
        data: The run that trained the student.
        version: Name of the version.
        warm_start: Version whose weights the student started from.

    Returns:
        Markdown.
    """
    config, card = data.config, data.config.card
    head = {
        "license": card.license or "unknown",
        "library_name": "transformers",
        "tags": ["qcrd", "distillation"],
    }
    not_stated = "not stated"
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---",
        f"# {config.run.name} {version}",
        "A small student that learned from a large teacher's rationales by quality-guided "
        "contrastive rationale distillation (arXiv 2405.13014).",
        "## Use",
        f"Intended use: {_text(card.intended_use) or not_stated}. "
        f"Contact: {_text(card.contact) or not_stated}.\n\n"
        f"`qcrd predict FOLDER FILE` prompts it as in the evaluation; the prompt is in "
        "`qcrd.json`. It also loads with plain transformers.",
        "## Licences",
        _table(
            ("student", _text(card.license) or not_stated),
            ("teacher", _text(card.teacher_license) or not_stated),
            ("questions", _text(card.data_license) or not_stated),
        ),
        "## Accuracy",
        _accuracy(data),
        "## Confidence",
        _confidence(data),
        "## Data",
        _table(*_data_rows(data)),
        "## Lineage",
        _table(*_lineage(data, warm_start)),
        "All settings are in `run/config.yaml`, the data set's description in `run/dataset.json`, "
        "the environment in `run/environment.json`, the test questions and the student's answers "
        "in `test/`.",
    ]
    return "\n\n".join(parts) + "\n"


def _accuracy(data: RunData) -> str:
    test = summary.student_accuracy(data.test)
    if test is None:
        return "Not measured, because no test question has a gold answer."
    level = f"{CONFIDENCE:.0%}"
    rows = [
        (
            *(_text(part.label), f"{part.share:.1%}"),
            *(str(part.num_correct), str(part.num_questions), _range(part)),
        )
        for part in (test, *summary.accuracy_by_template(data))
    ]
    vote = summary.vote_numbers(data)
    return (
        f"{table(('questions', 'right', '', 'of', f'{level} interval'), rows)}\n\n"
        f"The teacher on the training questions: single sample "
        f"{percent(vote.get('sample_accuracy'))}, majority "
        f"{percent(vote.get('majority_accuracy'))}."
    )


def _confidence(data: RunData) -> str:
    text = summary.confidence_text(data)
    surest = summary.surest_answers(data)
    if not surest:
        return f"Answers have no confidence. {text}"
    rows = [
        (
            part.label,
            f"{part.share:.1%}",
            str(part.num_correct),
            str(part.num_questions),
            _range(part),
        )
        for part in surest
    ]
    return (
        "Each answer has the probability that it is right, calibrated on the validation answers. "
        f"{text}\n\n"
        f"{table(('test answers', 'right', '', 'of', f'{CONFIDENCE:.0%} interval'), rows)}"
    )


def _range(part: summary.Accuracy) -> str:
    return f"{part.interval.low:.1%} to {part.interval.high:.1%}"


def _data_rows(data: RunData) -> list[tuple[str, str]]:
    splits = dict(data.questions.group_by("split").len().sort("split").iter_rows())
    counts = ", ".join(f"{number:,} {split}" for split, number in splits.items())
    vote, round_data = summary.vote_numbers(data), summary.last_values(data.metrics, "data")
    rows = [
        ("data set", _text(str(data.environment.get("dataset", data.config.data.dataset)))),
        ("questions", counts),
        ("label", data.config.data.label),
    ]
    rows += [
        (plain_name(name), f"{values[name]:,.0f}")
        for values, names in (
            (vote, ("num_samples", "num_failed", "num_unparsable", "num_abstained")),
            (round_data, _DATA_ROWS),
        )
        for name in names
        if values.get(name) is not None
    ]
    return rows


def _lineage(data: RunData, warm_start: str | None) -> list[tuple[str, str]]:
    environment: dict[str, Any] = data.environment
    versions = environment.get("versions") or {}
    shown = ", ".join(f"{name} {value}" for name, value in versions.items() if value)
    chosen = summary.chosen_round(data)
    return [
        ("run", data.run_id),
        ("chosen round", "not measured" if chosen is None else str(chosen)),
        ("weights at the start", f"version {warm_start}" if warm_start else _weights(data)),
        ("teacher", _text(", ".join(teacher_names(data.config.teachers)))),
        ("teacher's samples (generation)", _generations(environment)),
        ("hash of the questions", str(environment.get("questions_hash"))),
        ("started at", str(environment.get("started_at"))),
        ("commit of qcrd", str(environment.get("commit"))),
        ("versions", _text(shown)),
    ]


def _generations(environment: dict[str, Any]) -> str:
    names = (environment.get("generation"), *environment.get("other_generations", ()))
    return ", ".join(str(name) for name in names)


def _weights(data: RunData) -> str:
    model = data.config.student.model
    return _text(str(getattr(model, "name", getattr(model, "path", "from scratch"))))


def _table(*rows: tuple[str, str]) -> str:
    return table(("", ""), rows)


def _text(text: str | None) -> str:
    return "" if text is None else cell(text).rstrip(".")
