"""A first data set for a file, checked on the file's rows as a run checks them.

draft = draft_dataset(Path("tickets.csv"), question=None, answer=None)
draft.spec, draft.questions        what a run will read
draft.warnings                     what will hurt
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import ValidationError

from qcrd_core.config.reading import explain
from qcrd_core.config.run import DataSection
from qcrd_core.data import chats
from qcrd_core.data.concerns import concerns
from qcrd_core.data.files import Row, cell, read_beginning
from qcrd_core.data.guess.answers import MARKER, Kind, guess_kind, json_keys
from qcrd_core.data.guess.columns import Found, find_columns
from qcrd_core.data.guess.demonstrations import choose_demonstrations
from qcrd_core.data.load import check_validation, load_questions
from qcrd_core.data.questions import parts_to_questions
from qcrd_core.data.shards import parts_of
from qcrd_core.data.spec import DatasetSpec, Demonstration
from qcrd_core.errors import ConfigError, DataError

_SPLIT_NAMES = {"validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
_MIN_ROWS = 10
_MOST_NAMED = 30


@dataclass(frozen=True, eq=False)
class Draft:
    """A data set for a file, and why it is so."""

    spec: DatasetSpec
    questions: pl.DataFrame
    """Table `questions`, of the rows that were looked at."""
    found: Found
    kind: Kind
    demonstrations: tuple[Demonstration, ...]
    """Two examples of the data; those without reasoning have an empty rationale, and are not in
    the spec."""
    num_rows: int
    is_whole: bool
    """Whether these are all rows."""
    label: str
    """`data.label`."""
    warnings: tuple[str, ...]


def draft_dataset(path: Path, *, question: str | None, answer: str | None) -> Draft:
    """Look at a file and describe it as a data set.

    Args:
        path: A data file, or a folder of shards, of which the first is looked at.
        question: Column of the questions; None: it is chosen.
        answer: Column of the answers; None: it is chosen.

    Returns:
        The data set. Paths in it are absolute.

    Raises:
        ConfigError: If it is unclear which columns to use.
        DataError: If the file cannot be read, or its rows break a rule of a data set.
    """
    shown, path = path, path.absolute()
    splits = {"train": path, **_other_splits(path)}
    rows, is_whole = _read(splits)
    raw = next(iter(rows.values()))  # of train
    _check_number(raw, shown)
    first, found = _columns(raw, question, answer, str(shown))
    kind = _kind(first, found)
    content = _content(splits, found, kind)
    content["prompt"] = {"instruction": _instruction(kind, first, found)}
    spec = _validated(content | {"duplicates": "first"}, shown)
    frame = parts_to_questions([(str(shown), raw)], spec, "train")
    questions = load_questions(
        spec, DataSection(dataset="draft", label="majority"), read=lambda part: rows.get(part, [])
    )
    num_repeated = sum(map(len, rows.values())) - questions.height
    if not num_repeated:
        spec = spec.model_copy(update={"duplicates": "refuse"})
    check_validation(questions, spec)
    examples = choose_demonstrations(questions, _reasoning(first, frame, found, kind), spec)
    worked = tuple(example for example in examples if example.rationale.strip())
    prompt = spec.prompt.model_copy(update={"demonstrations": worked})
    spec = spec.model_copy(update={"prompt": prompt})
    train = questions.filter(split="train")
    num_unlabelled = train["gold_answer"].null_count()
    return Draft(
        spec=spec,
        questions=questions,
        found=found,
        kind=kind,
        demonstrations=examples,
        num_rows=len(first),
        is_whole=is_whole,
        label="majority" if num_unlabelled else "gold",
        warnings=(
            *_repeated(frame, num_repeated),
            *_unlabelled(num_unlabelled, train.height),
            *_own_splits(first),
            *kind.warnings,
            *concerns(spec, questions, is_instructed=True),
        ),
    )


_CONVERSATION = Found(
    question=chats.QUESTION,
    parts=(chats.QUESTION,),
    answer=chats.GOLD,
    choices=None,
    reasoning=None,
    question_id=None,
    reasons={"question": "the turns before the answer", "answer": "the last assistant turn"},
)


def _read(splits: dict[str, Path]) -> tuple[dict[Path, list[Row]], bool]:
    """The rows of each split's first file, and whether there are no others."""
    rows, is_whole = {}, True
    for named in splits.values():
        parts = parts_of(named)
        rows[parts[0]], is_all = read_beginning(parts[0])
        is_whole = is_whole and is_all and len(parts) == 1
    return rows, is_whole


def _columns(
    rows: list[Row], question: str | None, answer: str | None, where: str
) -> tuple[list[Row], Found]:
    """Rows with a question and an answer, and the columns that hold them."""
    if all(name not in rows[0] for name in chats.COLUMNS):
        return rows, find_columns(rows, question=question, answer=answer, where=where)
    if question is not None or answer is not None:
        msg = (
            f"--question and --answer apply to columns; {where} holds conversations, whose turns "
            "are question and answer. Omit them."
        )
        raise ConfigError(msg)
    return chats.chat_rows(rows, where), _CONVERSATION


def _check_number(rows: Sequence[Row], path: Path) -> None:
    if len(rows) < _MIN_ROWS:
        msg = (
            f"A run needs at least {_MIN_ROWS} questions, some of which are held out; {path} has "
            f"{len(rows)}. Add questions."
        )
        raise DataError(msg)


def _other_splits(path: Path) -> dict[str, Path]:
    """Files of the same folder and name with `test` or `validation` in the place of `train`."""
    if not re.search(r"\btrain\b|_train|train_", path.name):
        return {}
    names = {
        split: [path.with_name(path.name.replace("train", name)) for name in names]
        for split, names in _SPLIT_NAMES.items()
    }
    found = {s: next((p for p in paths if p.exists()), None) for s, paths in names.items()}
    return {split: other for split, other in found.items() if other is not None}


def _kind(rows: Sequence[Row], found: Found) -> Kind:
    filled = [row for row in rows if cell(row, found.answer) not in (None, "", [], {})]
    if not filled:
        msg = f"The column {found.answer} holds no answer. Name another one with --answer."
        raise ConfigError(msg)
    choices = None
    if found.choices is not None:
        choices = [
            cell(row, found.choices)
            if isinstance(found.choices, str)
            else [cell(row, name) for name in found.choices]
            for row in filled
        ]
    return guess_kind(found.answer, [cell(row, found.answer) for row in filled], choices)


def _content(splits: dict[str, Path], found: Found, kind: Kind) -> dict[str, Any]:
    if found is _CONVERSATION:
        return {
            "name": _name(splits["train"]),
            "source": {"type": "chat", **splits},
            "columns": kind.columns,
            "answer": {**kind.answer, "marker": MARKER},
        }
    columns: dict[str, Any] = {"gold_answer": found.answer, **kind.columns}
    if kind.is_first_of_list:
        columns["gold_answer"] = f"{found.answer}.0"
    if found.question_id is not None:
        columns["question_id"] = found.question_id
    if found.choices is not None:
        columns["choices"] = found.choices
    content: dict[str, Any] = {
        "name": _name(splits["train"]),
        "source": {"type": "files", **splits},
    }
    if len(found.parts) > 1:
        shown = [f"{{{name}}}" for name in found.parts]
        lettered = [] if found.choices is None else ["{choices}"]
        content["question_template"] = "\n".join([*shown, *lettered])
    else:
        columns["question"] = found.question
    answer = {**kind.answer, "marker": MARKER}
    return {**content, "columns": columns, "answer": answer}


def _name(path: Path) -> str:
    stem = path.name
    while "." in stem:
        stem = stem.rpartition(".")[0]
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_")[:60]
    if name in {"", "train", "data", "run"}:  # a folder says more, and run.yaml is the run's
        folder = re.sub(r"[^A-Za-z0-9_-]+", "-", path.parent.name).strip("-_")[:60]
        return folder if folder not in {"", "run"} else "mine"
    return name


def _instruction(kind: Kind, rows: Sequence[Row], found: Found) -> str:
    answer, labels = kind.answer["kind"], kind.answer.get("labels", ())
    named = f" ({', '.join(labels)})" if 0 < len(labels) <= _MOST_NAMED else ""
    if answer == "json":
        keys = json_keys([cell(row, found.answer) for row in rows])[:_MOST_NAMED]
        named = f" ({', '.join(keys)})" if keys else ""
    task, ending = {
        "number": ("Solve the problem step by step.", "the number"),
        "choice": ("Say which choice is right and why.", "the choice with its letter"),
        "label": (f"Say which label fits and why{named}.", "the label"),
        "labels": (f"Say which labels fit and why{named}.", "these labels, or none"),
        "json": (f"Say what the text states, field by field{named}.", "one JSON value"),
        "text": ("Think step by step.", "the answer alone"),
    }[answer]
    return f'{task} End with the sentence "{MARKER}" and {ending}.'


def _reasoning(
    rows: Sequence[Row], frame: pl.DataFrame, found: Found, kind: Kind
) -> dict[str, str]:
    """The worked reasoning of each question that has one, by question id."""
    column = found.reasoning
    mark = kind.columns.get("gold_after")
    texts = [str(cell(row, column or found.answer) or "") for row in rows]
    if column is None:
        texts = [text.rpartition(mark)[0] if mark else "" for text in texts]
    # GSM8K's notes for a calculator, which no teacher should learn to write.
    texts = [re.sub(r"<<[^<>]*>>", "", text).strip() for text in texts]
    return dict(zip(frame["question_id"], texts, strict=True))


def _validated(content: dict[str, Any], path: Path) -> DatasetSpec:
    try:
        return DatasetSpec.model_validate(content)
    except ValidationError as error:
        raise ConfigError(explain(error, str(path))) from error


def _repeated(frame: pl.DataFrame, num_repeated: int) -> list[str]:
    if not num_repeated:
        return []
    answers = frame.group_by("question_id").agg(pl.col("gold_answer").n_unique())
    num_differing = int((answers["gold_answer"] > 1).sum())
    more = f" {num_differing} of them have several answers." if num_differing else ""
    return [
        f"{num_repeated} rows repeat a question; one row of each is used, first of test, then of "
        f"validation, then of train.{more}"
    ]


def _unlabelled(num_unlabelled: int, num_train: int) -> list[str]:
    if not num_unlabelled:
        return []
    return [
        f"{num_unlabelled} of {num_train} training questions have no answer, so the student learns "
        "the teacher's majority (data.label)."
    ]


def _own_splits(rows: Sequence[Row]) -> list[str]:
    name = next((name for name in rows[0] if name.lower() in {"split", "fold", "subset"}), None)
    if name is None:
        return []
    return [
        f"Column {name} is not used: test questions are chosen by hash. To keep your own splits, "
        "write one file per split and name them in source."
    ]
