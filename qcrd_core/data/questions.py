"""Turns source rows into rows of table `questions`."""

import json
from collections.abc import Sequence
from typing import Any

import polars as pl

from data_schemas import Questions
from qcrd_core.data import chats
from qcrd_core.data.answers import read_answer
from qcrd_core.data.choices import Choices, numbered_choice, read_choices
from qcrd_core.data.files import Row, cell, has_column
from qcrd_core.data.readers.names import NO_LABELS
from qcrd_core.data.spec import DatasetSpec
from qcrd_core.data.templates import CHOICES, fill_template, template_fields
from qcrd_core.errors import DataError
from qcrd_core.ids import content_hash
from qcrd_core.runtime.verifier import Verdict

_MAX_SHOWN = 3


def to_questions(rows: Sequence[Row], spec: DatasetSpec, split: str, *, where: str) -> pl.DataFrame:
    """Map source rows by the spec's columns.

    Args:
        rows: Rows of one split, at least one.
        spec: Columns, question template and answer form.
        split: train, validation or test.
        where: Name of the source, for errors.

    Returns:
        Columns of table `questions`, one row per source row, in the same order. Ids may repeat.

    Raises:
        DataError: If a column is absent, a question is empty, choices are not a list of texts, or a
            gold answer cannot be read.
    """
    return parts_to_questions([(where, rows)], spec, split)


def parts_to_questions(
    parts: Sequence[tuple[str, Sequence[Row]]], spec: DatasetSpec, split: str
) -> pl.DataFrame:
    """As `to_questions`, for the files of one split.

    Args:
        parts: Name and rows of each file, at least one row in all.
        spec: Columns, question template and answer form.
        split: train, validation or test.

    Returns:
        Columns of table `questions`, in the order of the files and their rows. Ids may repeat.

    Raises:
        DataError: As `to_questions`.
    """
    if spec.is_chat:
        parts = [(where, chats.chat_rows(rows, where)) for where, rows in parts]
        named = {"question": chats.QUESTION, "gold_answer": chats.GOLD}
        spec = spec.model_copy(update={"columns": spec.columns.model_copy(update=named)})
    _check_columns([row for _, rows in parts for row in rows], spec, parts[0][0])
    made = [
        {"split": split, **_question(row, spec, f"{where}, row {number}")}
        for where, rows in parts
        for number, row in enumerate(rows, start=1)
    ]
    schema = Questions.create_empty().schema
    return pl.DataFrame(made, schema=schema)


def distinct(frame: pl.DataFrame, spec: DatasetSpec, where: str) -> tuple[pl.DataFrame, int]:
    """Make question ids distinct, or reject repeated ones, according to `spec.duplicates`.

    Args:
        frame: Columns of table `questions`, in the order of preference.
        spec: Its `duplicates` determines what happens to repeated ids.
        where: Name of the source, for errors.

    Returns:
        Rows with distinct ids, and the number of dropped rows.

    Raises:
        DataError: If ids repeat and the spec forbids it; names up to three.
    """
    kept = frame.unique("question_id", keep="first", maintain_order=True)
    num_left_out = frame.height - kept.height
    if num_left_out and spec.duplicates == "refuse":
        repeated = frame.filter(pl.col("question_id").is_duplicated())["question_id"]
        names = repeated.unique(maintain_order=True).to_list()
        more = ", ..." if len(names) > _MAX_SHOWN else ""
        remedy = "Name another column" if spec.columns.question_id else "Remove repeated questions"
        msg = (
            f"Question ids must be distinct over all splits; got {len(names)} repeated ids: "
            f"{', '.join(names[:_MAX_SHOWN])}{more} ({where}). {remedy}, or set duplicates: first "
            "to keep the first of each."
        )
        raise DataError(msg)
    return kept, num_left_out


def _check_columns(rows: Sequence[Row], spec: DatasetSpec, where: str) -> None:
    # A key that only some rows lack is a null there; a key that all rows lack is a wrong name.
    present = {name for row in rows for name in row}
    missing = [name for name in _columns_used(spec) if not has_column(present, name)]
    if missing:
        msg = (
            f"{where} must have the column {missing[0]}; got {', '.join(sorted(present))}. Correct "
            "`columns` or `question_template` in the data set's file."
        )
        raise DataError(msg)


def _columns_used(spec: DatasetSpec) -> list[str]:
    columns = spec.columns
    choices = columns.choices or ()
    choice_names = (choices,) if isinstance(choices, str) else choices
    if spec.question_template is None:
        names: list[str | None] = [columns.question]
    else:
        fields = template_fields(spec.question_template)
        names = [name for name in fields if name != CHOICES or not choices]
    names += [columns.question_id, columns.gold_answer, columns.gold_target, columns.template]
    return [name for name in (*names, *choice_names) if name is not None]


def _question(row: Row, spec: DatasetSpec, where: str) -> dict[str, Any]:
    columns = spec.columns
    choices = None if columns.choices is None else read_choices(row, columns.choices, where)
    texts = None if choices is None else choices.texts
    question = _question_text(row, spec, texts, where)
    if not question.strip():
        msg = f"A question must not be empty; got an empty one ({where}). Fill or remove the row."
        raise DataError(msg)
    question_id = _text(row, columns.question_id, where)
    if columns.question_id is None:
        question_id = content_hash(question, *(texts or ()))
    elif not question_id:
        msg = (
            f"A question id must not be empty; got an empty one ({where}, {columns.question_id}). "
            "Fill or remove the row."
        )
        raise DataError(msg)
    gold_raw = _gold_raw(row, spec, where)
    gold_answer = None
    if gold_raw:
        gold_answer, error = _gold_answer(row, gold_raw, (choices, question), spec)
        if gold_answer is None:
            raise DataError(_unreadable_gold(spec, f"{where}, question {question_id}", error))
    target = _text(row, columns.gold_target, where)
    if not target and (spec.answer.kind == "text" or spec.answer.is_learnt_as_written):
        target = gold_raw
    return {
        "question_id": question_id,
        "question": question,
        "choices": texts,
        "gold_answer": gold_answer,
        "gold_target": target if target and target != gold_answer else None,
        "template": _text(row, columns.template, where) or None,
        "messages": row[chats.MESSAGES] if spec.is_chat else None,
    }


def _gold_answer(
    row: Row, raw: str, asked: tuple[Choices | None, str], spec: DatasetSpec
) -> Verdict:
    columns = spec.columns
    choices, question = asked
    texts = None if choices is None else choices.texts
    if choices is None or columns.gold_names or columns.gold_after:
        return read_answer(raw, spec.answer, texts, question)
    numbered = numbered_choice(
        cell(row, columns.gold_answer or ""), raw, choices, columns.gold_index
    )
    if numbered is not None or columns.gold_index is not None:
        return Verdict(numbered)
    return read_answer(raw, spec.answer, texts, question)


def _unreadable_gold(spec: DatasetSpec, where: str, error: str | None) -> str:
    if spec.answer.verifier is not None:
        found = "None" if error is None else f"a failure: {error}"
        return (
            f"A gold answer must be one that {spec.answer.verifier.function} reads; got {found} "
            f"({where}). Correct the gold answer, or the function."
        )
    if spec.columns.gold_index is not None:
        return (
            "A gold answer must be the number of a choice, counted from columns.gold_index "
            f"{spec.columns.gold_index}; got another ({where}). Correct it, or columns.gold_index."
        )
    remedy = "Correct the gold answer, or change answer.kind."
    if spec.answer.kind == "choice":
        remedy = "If it counts the choices from 1, set columns.gold_index: 1; else correct it."
    return (
        f"A gold answer must be a {spec.answer.kind}, as answer.kind says; got one that cannot be "
        f"read ({where}). {remedy}"
    )


def _question_text(row: Row, spec: DatasetSpec, choices: list[str] | None, where: str) -> str:
    shown = "\n".join(f"({chr(ord('a') + i)}) {choice}" for i, choice in enumerate(choices or ()))
    if spec.question_template is None:
        question = _text(row, spec.columns.question, where)
        return f"{question}\nAnswer Choices:\n{shown}" if question and shown else question
    values = {name: _text(row, name, where) for name in template_fields(spec.question_template)}
    if not any(value for name, value in values.items() if name != CHOICES):
        return ""
    if choices:
        values[CHOICES] = shown
    return fill_template(spec.question_template, values)


def _gold_raw(row: Row, spec: DatasetSpec, where: str) -> str:
    columns = spec.columns
    value = cell(row, columns.gold_answer or "")
    if spec.answer.kind == "json" and isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    if spec.answer.kind == "labels" and isinstance(value, list):
        return ", ".join(str(label) for label in value) or NO_LABELS
    raw = _text(row, columns.gold_answer, where)
    if not raw:
        return ""
    if columns.gold_after is not None:
        _, found, raw = raw.rpartition(columns.gold_after)
        if not found:
            msg = (
                f"A gold answer must follow the text {columns.gold_after!r}; got no such text "
                f"({where}). Correct the row, or remove columns.gold_after."
            )
            raise DataError(msg)
    if columns.gold_names and raw.removesuffix(".0").isdecimal():
        index = int(raw.removesuffix(".0"))
        return columns.gold_names[index] if index < len(columns.gold_names) else raw
    return raw.strip()


def _text(row: Row, name: str | None, where: str) -> str:
    value = None if name is None else cell(row, name)
    if isinstance(value, dict | list):
        inside = f"{name}.{next(iter(value), 'name')}" if isinstance(value, dict) else f"{name}.0"
        kind = "fields" if isinstance(value, dict) else "a list"
        msg = (
            f"Column {name} must hold texts; got {kind} ({where}). Name the text in it, for "
            f"example {inside}."
        )
        raise DataError(msg)
    return "" if value is None else str(value).strip()
