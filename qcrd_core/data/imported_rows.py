"""The rationales in a row of an imported file, and what the file says about them.

It may say their answers, and whether they are right. The collector often knows both. Reading free
text again can only be worse, and a right rationale that is misread becomes a negative, from which
the student is pushed away.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from qcrd_core.config.base import Section
from qcrd_core.data.answers import AnswerSpec, canonical
from qcrd_core.data.completions import read_completion
from qcrd_core.data.files import Row, cell
from qcrd_core.errors import DataError

_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class SampleColumns(Section):
    """Names of the columns that say something about the single rationales of a row."""

    later = frozenset({"answer", "correct"})

    rationales: str | None = None
    """A list of completions, or one completion; rationales of several rows of one question are
    joined. Null: the format's column."""
    answer: str | None = None
    """The answer of each rationale, if the file has it: a list like `rationales`, or one value. It
    is used instead of reading the rationale."""
    correct: str | None = None
    """Whether each rationale is right: true or false, a list like `rationales`, or one value. The
    answer of a right one is the gold answer; a wrong one never has the gold answer."""


@dataclass(frozen=True)
class KnownAnswer:
    """What a file says about one rationale; None is nothing."""

    text: str | None
    """Its answer as written."""
    is_correct: bool | None
    """Whether it is right."""


def samples_of(
    row: Row, question: Row, columns: SampleColumns, spec: AnswerSpec, where: str
) -> list[dict[str, Any]]:
    """Read the rationales of a row.

    Args:
        row: The row.
        question: Its row of table `questions`.
        columns: Names of the file's columns.
        spec: The data set's answers.
        where: The row's place, for errors.

    Returns:
        Per rationale, the part of table `rationales` that differs between those of one row.

    Raises:
        DataError: If the file says its answers or their truth in a way that does not fit.
    """
    texts = _texts(cell(row, columns.rationales or ""))
    known = _known_answers(row, columns, len(texts), where)
    asked = {"choices": question["choices"], "question": question["question"]}
    samples: list[dict[str, Any]] = []
    for text, said in zip(texts, known, strict=True):
        if text is None:
            samples.append({"status": "failed", "error": "The file holds no text here."})
            continue
        read = read_completion(text, spec, **asked)
        if read["status"] in {"ok", "no_answer"}:
            raw, answer = _settled(read, said, question, spec)
            status = "no_answer" if answer is None else "ok"
            read |= {"answer_raw": raw, "answer": answer, "status": status}
        samples.append(read)
    return samples


def _known_answers(row: Row, columns: SampleColumns, number: int, where: str) -> list[KnownAnswer]:
    texts = _values(row, columns.answer, number, where)
    rights = _values(row, columns.correct, number, where)
    return [
        KnownAnswer(
            None if text is None or not str(text).strip() else str(text).strip(),
            _truth(right, f"{where}, {columns.correct}"),
        )
        for text, right in zip(texts, rights, strict=True)
    ]


def _settled(
    read: Mapping[str, Any],
    known: KnownAnswer,
    question: Row,
    spec: AnswerSpec,
) -> tuple[str | None, str | None]:
    """The answer as written and canonical: what the file says comes before what was read.

    Both are None if the file says that the rationale is wrong, but it reads like a right one.
    """
    raw, answer, gold_answer = read["answer_raw"], read["answer"], question["gold_answer"]
    if known.text is not None:
        raw = known.text
        answer = canonical(raw, spec, question["choices"], question["question"])
    if known.is_correct and gold_answer is not None:
        return (raw if answer == gold_answer else gold_answer), gold_answer
    if answer is None or (known.is_correct is False and answer == gold_answer):
        return None, None
    return raw, answer


def _values(row: Row, column: str | None, number: int, where: str) -> list[Any]:
    value = None if column is None else cell(row, column)
    value = _listed(value)
    values = value if isinstance(value, list) else [value] * number
    if len(values) != number:
        msg = (
            f"Column {column} must hold one value per rationale; got {len(values)} for {number} "
            f"({where}). Correct the row."
        )
        raise DataError(msg)
    return values


def _truth(value: Any, where: str) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    truth = _TRUTH.get(str(value).strip().lower().removesuffix(".0"))
    if truth is None:
        msg = (
            f"The column that says whether a rationale is right must hold true or false; got "
            f"{str(value)[:40]!r} ({where}). Correct it, or leave out --correct."
        )
        raise DataError(msg)
    return truth


def _texts(value: Any) -> list[str | None]:
    """The completions in one cell: a list, a JSON list as text (CSV), or one text."""
    value = _listed(value)
    values = value if isinstance(value, list) else [] if value is None else [value]
    return [None if item is None or not str(item).strip() else str(item) for item in values]


def _listed(value: Any) -> Any:
    """The list that a text writes as JSON, or the value itself."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    try:
        parsed = from_json(value)
    except ValueError:
        return value
    return parsed if isinstance(parsed, list) else value
