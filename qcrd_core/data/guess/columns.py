"""Which column of a file holds the questions, the answers, the choices and the reasoning.

Names decide first, in the order of the lists below; what the columns hold decides among the rest.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from qcrd_core.data.files import Row, cell
from qcrd_core.errors import ConfigError

_QUESTION = (
    *("question", "problem", "premise", "instruction", "prompt", "input", "text", "sentence"),
    *("utterance", "message", "query", "body", "description", "review", "comment", "document"),
    *("content", "ticket", "request", "frage", "title", "subject"),
)
_ANSWER = (
    *(
        "gold_answer",
        "correct_answer",
        "final_answer",
        "answer_key",
        "answerkey",
        "answer",
        "answers",
        "gold",
    ),
    *("label", "labels", "tags", "category", "categories", "class", "intent", "sentiment", "topic"),
    *("priority", "target", "output", "response", "completion", "result", "sql", "query"),
    *("expected", "entities", "extraction", "json", "summary", "solution", "antwort", "ergebnis"),
)
# What follows an instruction is its answer, even if the rows have categories as well.
_INSTRUCTIONS, _AFTER_INSTRUCTION = ("instruction", "prompt"), ("output", "response", "completion")
_REASONING = (
    *("rationale", "reasoning", "explanation", "chain_of_thought", "cot", "thought", "steps"),
    "solution",
)
_ID = ("id", "_id", "uid", "uuid", "guid", "question_id", "qid", "example_id", "ticket_id", "key")
_CHOICES = ("choices", "options", "answer_choices", "candidates", "alternatives", "endings")
_BEFORE_QUESTION = {
    "question": ("context", "passage", "schema", "table", "article", "sql_context", "body"),
    "instruction": ("context",),
    "body": ("subject", "title"),
    "text": ("subject", "title"),
    "description": ("subject", "title"),
}
_AFTER_QUESTION = {"instruction": ("input",), "premise": ("hypothesis",), "body": ("question",)}
_FAMILY = re.compile(r"(?P<stem>.*?)[_ -]?(?P<member>[a-hA-H]|[0-9])")
_LABEL_NAMES = frozenset({"label", "class", "category", "target", "intent", "sentiment"})
_MIN_FILLED = 0.5
_MAX_DEPTH = 3


@dataclass(frozen=True)
class Found:
    """The columns of a file, by what they hold. Names are paths, as in `columns` of a data set."""

    question: str
    parts: tuple[str, ...]
    """Columns that make up the question, in their order; only the question if there are no more."""
    answer: str
    choices: str | tuple[str, ...] | None
    reasoning: str | None
    question_id: str | None
    reasons: Mapping[str, str]
    """Why question and answer were chosen, by the names above."""
    unused: tuple[str, ...] = ()
    """Columns of the file that are not read."""


def find_columns(
    rows: Sequence[Row], *, question: str | None, answer: str | None, where: str
) -> Found:
    """Choose the columns of a file.

    Args:
        rows: Its rows, at least one.
        question: Column that the user names, or None.
        answer: The same of the answers.
        where: The file, for errors.

    Returns:
        The columns.

    Raises:
        ConfigError: If a named column is absent, or none can be chosen.
    """
    values = column_values(rows)
    if len(values) == 1 and ";" in next(iter(values)):
        msg = f"{where} is separated by semicolons. Write it with commas, or with tabs as .tsv."
        raise ConfigError(msg)
    for option, name in (("--question", question), ("--answer", answer)):
        if name is not None and name not in values:
            msg = f"{option} must name a column of {where}; got {name}. It has {_list(values)}."
            raise ConfigError(msg)
    choices = _choices(values)
    taken = {name for name in (question, answer, *_names(choices)) if name is not None}
    usable = {name: held for name, held in values.items() if name not in taken}
    texts = {name: held for name, held in usable.items() if _are_texts(held)}
    asked = question or _named(texts, _QUESTION, len(rows)) or _longest(texts)
    if asked is None:
        raise ConfigError(_none("question", "--question", values, where))
    parts = _parts(asked, texts) if question is None else (asked,)
    rest = {name: held for name, held in usable.items() if name not in parts}
    told = _AFTER_INSTRUCTION if _plain(asked) in _INSTRUCTIONS else ()
    given = answer or _named(rest, (*told, *_ANSWER), len(rows)) or _repeating(rest)
    if given is None:
        raise ConfigError(_none("answer", "--answer", values, where))
    if answer is None and f"{given}.text" in rest:  # as in SQuAD, beside the answer's place
        given = f"{given}.text"
    others = {name: held for name, held in rest.items() if name != given}
    reasoning = _named({n: h for n, h in others.items() if _are_texts(h)}, _REASONING, len(rows))
    question_id = _id(others, len(rows))
    return Found(
        question=asked,
        parts=parts,
        answer=given,
        choices=choices,
        reasoning=reasoning,
        question_id=question_id,
        unused=_unused(rows, (*parts, given, *_names(choices), reasoning, question_id)),
        reasons={
            "question": _reason(asked, question, _QUESTION, "the longest texts"),
            "answer": _reason(given, answer, _ANSWER, "few values that repeat"),
        },
    )


def column_values(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Values of each column that are not empty, by its path, in the file's order."""
    names: dict[str, None] = {}
    for row in rows:
        for name, value in row.items():
            names.update(dict.fromkeys(_paths(name, value, 1)))
    return {
        name: [v for row in rows if (v := cell(row, name)) is not None and v not in ("", [], {})]
        for name in names
    }


def _paths(name: str, value: Any, depth: int) -> list[str]:
    if not isinstance(value, dict) or depth == _MAX_DEPTH or {"text", "label"} <= value.keys():
        return [name]
    return [name, *(p for key, v in value.items() for p in _paths(f"{name}.{key}", v, depth + 1))]


def _are_texts(held: Sequence[Any]) -> bool:
    return bool(held) and all(isinstance(value, str) for value in held)


def _named(values: Mapping[str, Sequence[Any]], names: Sequence[str], num_rows: int) -> str | None:
    """The first column whose name is one of `names`, or ends in one of them."""
    usable = [name for name, held in values.items() if len(held) >= _MIN_FILLED * num_rows]
    for wanted in names:
        exact = [name for name in usable if _plain(name) == wanted]
        if exact:
            return exact[0]
    for wanted in names:
        inside = [n for n in usable if wanted in re.split(r"[_.]", _plain(n))]
        if inside:
            return inside[0]
    return None


def _plain(name: str) -> str:
    return re.sub(r"[\s-]+", "_", name.strip().lower())


def _longest(texts: Mapping[str, Sequence[Any]]) -> str | None:
    sizes = {name: sum(map(len, held)) / len(held) for name, held in texts.items()}
    best = max(sizes, key=lambda name: sizes[name], default=None)
    # A question has some words; codes and names have not.
    return best if best is not None and " " in max(texts[best], key=len) else None


def _repeating(values: Mapping[str, Sequence[Any]]) -> str | None:
    """The only column of few values, each of which occurs in several rows."""
    found = [
        name
        for name, held in values.items()
        if len(held) >= 3 * (distinct := len({str(value) for value in held})) and distinct > 1
    ]
    return found[0] if len(found) == 1 else None


def _parts(question: str, texts: Mapping[str, Sequence[Any]]) -> tuple[str, ...]:
    # Braces, "!" and ":" mean something in a template.
    plain = {_plain(name): name for name in texts if not set(name) & set("{}!:")}
    kind = _plain(question)
    before = next((plain[n] for n in _BEFORE_QUESTION.get(kind, ()) if n in plain), None)
    after = next((plain[n] for n in _AFTER_QUESTION.get(kind, ()) if n in plain), None)
    parts = tuple(name for name in (before, question, after) if name is not None)
    return parts if question in plain.values() else (question,)


def _choices(values: Mapping[str, Sequence[Any]]) -> str | tuple[str, ...] | None:
    for name in values:
        if _plain(name).rpartition(".")[2] in _CHOICES and all(
            _is_list(value) for value in values[name]
        ):
            return name
    families: dict[str, list[str]] = {}
    for name, held in values.items():
        match = _FAMILY.fullmatch(name)
        if match is not None and held and not isinstance(held[0], dict | list):
            families.setdefault(match["stem"].lower(), []).append(name)
    stems = ("", "option", "choice", "answer", "ending", "sol", "opt")
    found = [families[stem] for stem in stems if len(families.get(stem, ())) > 1]
    return tuple(found[0]) if found else None


def _is_list(value: Any) -> bool:
    if isinstance(value, str):
        try:
            value = from_json(value)
        except ValueError:
            return False
    return isinstance(value, list | dict) and len(value) > 1


def _id(values: Mapping[str, Sequence[Any]], num_rows: int) -> str | None:
    for name, held in values.items():
        is_id = _plain(name) in _ID and all(isinstance(value, str | int) for value in held)
        if is_id and len({str(value) for value in held}) == num_rows:
            return name
    return None


def _unused(rows: Sequence[Row], used: Sequence[str | None]) -> tuple[str, ...]:
    heads = {name if name in rows[0] else name.partition(".")[0] for name in used if name}
    return tuple(dict.fromkeys(name for row in rows for name in row if name not in heads))


def _names(choices: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (choices,) if isinstance(choices, str) else choices or ()


def _reason(name: str, named: str | None, known: Sequence[str], otherwise: str) -> str:
    if named is not None:
        return "as you named it"
    is_known = any(part in known for part in (_plain(name), *re.split(r"[_.]", _plain(name))))
    return "by its name" if is_known else otherwise


def is_label_name(name: str) -> bool:
    """Whether a column of this name holds labels, even if they are numbers."""
    return bool(_LABEL_NAMES & set(re.split(r"[_.]", _plain(name))))


def _none(what: str, option: str, values: Mapping[str, Any], where: str) -> str:
    return (
        f"No column of {where} is recognised as that of the {what}s; it has {_list(values)}. Name "
        f"it with {option}."
    )


def _list(names: Mapping[str, Any]) -> str:
    shown = list(names)
    return ", ".join(shown[:12]) + (f" and {len(shown) - 12} more" if len(shown) > 12 else "")
