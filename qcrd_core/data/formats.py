"""File formats of published collections of rationales.

    dss         Distilling Step-by-Step: a JSON array of PaLM outputs, `llm/<split>_CoT_<n>.json`,
                in the order of the data set's own file, which must be given too
    mcc-kd      MCC-KD: question or instruction, label and a list of rationales or outputs per row
    distilabel  instruction with generation, or with a list of generations; model_name
    plain       columns named one by one

Texts that continue after their answer are not cut here: `qcrd_core.data.answers` cuts them at the
data set's marker and stop texts.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from qcrd_core.config.files import check_ordinary
from qcrd_core.data.files import Row, parse_json, read_rows, read_text
from qcrd_core.data.shards import parts_of
from qcrd_core.errors import ConfigError, DataError

Format = Literal["plain", "dss", "mcc-kd", "distilabel"]

_OUTPUT = "teacher_output"
_COLUMNS: dict[str, dict[str, tuple[str, ...]]] = {
    "plain": {},
    "dss": {"rationales": (_OUTPUT,), "question": ("question",)},
    "mcc-kd": {
        "rationales": ("rationales", "rationale", "output"),
        "question": ("question", "instruction"),
        "gold_answer": ("label", "answer"),
    },
    "distilabel": {
        "rationales": ("generations", "generation"),
        "question": ("instruction", "prompt"),
    },
}


def default_columns(form: Format, rows: Sequence[Row], *, joined: bool = False) -> dict[str, str]:
    """Names of a format's columns that the file has.

    Args:
        form: The format.
        rows: Rows of the file.
        joined: Whether the questions come from the data set's own file; the data set then names
            its columns.

    Returns:
        Names by field of `ImportColumns`; per field, the first of its names that the file has.
    """
    present = {name for row in rows for name in row}
    return {
        field: name
        for field, names in _COLUMNS[form].items()
        for name in [next((name for name in names if name in present), None)]
        if name is not None and not (joined and field == "question")
    }


def read_format(path: Path, form: Format, questions: Path | None) -> list[Row]:
    """Read a file of rationales as rows.

    Args:
        path: The file; or a pattern such as `train_CoT_*.json`, or a folder, for its parts, which
            are joined by the numbers in their names.
        form: Its format.
        questions: For dss, the data set's own file in the same order; otherwise None.

    Returns:
        One mapping per row. For dss, column `teacher_output` holds the output of each question.

    Raises:
        ConfigError: If `questions` is missing, or given although the format does not use it.
        DataError: If a file breaks a rule, or the two files differ in their number of rows.
    """
    parts = parts_of(path)
    if form != "dss":
        if questions is not None:
            msg = f"--questions applies only to --format dss; got {questions} with {form}. Omit it."
            raise ConfigError(msg)
        return _rows(parts)
    rows = None if all(_is_array_of_texts(part) for part in parts) else _rows(parts)
    if rows is not None and questions is None:
        return rows
    if rows is not None or questions is None:
        msg = (
            "--questions must be given for an array of outputs, and omitted for a file that holds "
            f"the questions; got {questions} ({path}, --format dss)."
        )
        raise ConfigError(msg)
    outputs, asked = [text for part in parts for text in _array(part)], read_rows(questions)
    if len(outputs) != len(asked):
        msg = (
            "Outputs are joined to questions by their order, so both files must have the same "
            f"number; got {len(outputs)} outputs ({path}) and {len(asked)} questions "
            f"({questions}). Give the file of questions that belongs to the outputs."
        )
        raise DataError(msg)
    return [{**row, _OUTPUT: text} for row, text in zip(asked, outputs, strict=True)]


def _rows(parts: Sequence[Path]) -> list[Row]:
    return [row for part in parts for row in read_rows(part)]


def model_name(rows: Sequence[Row]) -> str | None:
    """The model in distilabel's column `model_name`; None if it names several."""
    names = {row.get("model_name") for row in rows}
    (name, *others) = names
    return name if isinstance(name, str) and not others else None


def _is_array_of_texts(path: Path) -> bool:
    return ".json" in path.suffixes and all(isinstance(item, str | None) for item in _array(path))


def _array(path: Path) -> list[str | None]:
    try:
        check_ordinary(path)
        content = parse_json(read_text(path))
    except OSError as error:
        msg = f"{path} must be a readable file; got {error.strerror or error}. Check the path."
        raise DataError(msg) from error
    except ValueError as error:
        msg = f"{path} must be valid JSON; got {error}. Correct the file."
        raise DataError(msg) from error
    if not isinstance(content, list) or not content:
        msg = f"{path} must hold a JSON array with at least one item; got {type(content).__name__}."
        raise DataError(msg)
    return content
