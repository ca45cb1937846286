"""The command `qcrd predict`: let a student answer a file of questions.

qcrd predict STUDENT FILE [--output ANSWERS.jsonl]
qcrd predict STUDENT - < QUESTIONS.jsonl > ANSWERS.jsonl
"""

import shlex
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any, TextIO

from cyclopts import Parameter

from qcrd_core.errors import ConfigError

_STANDARD = Path("-")


def predict(
    student: str,
    file: Annotated[Path, Parameter(allow_leading_hyphen=True)],
    *,
    output: Path | None = None,
    batch_size: int = 128,
) -> None:
    """Answer the questions of a file with a student.

    Args:
        student: Folder or URL of a published student, `<store>/runs/<run id>/student`.
        file: JSON lines, JSON array, CSV or Parquet file with the data set's columns. If it also
            holds the right answers, the accuracy is printed. - reads JSON lines from standard input
            and, without --output, writes the answers to standard output.
        output: New file: .jsonl, .csv or .parquet. By default `<name>.predictions.jsonl`, in
            the folder of the input file.
        batch_size: Number of questions answered at once.
    """
    if file == _STANDARD:
        _predict_standard_input(student, output, batch_size)
        return
    if not file.name:
        msg = f"FILE must name a file of questions; got {file}."
        raise ConfigError(msg)
    target = output or file.with_name(f"{file.stem}.predictions.jsonl")
    _print_numbers(_predict(student, file, target, batch_size), sys.stdout)
    print(f"\nhead -3 {shlex.quote(str(target))}")


def _predict_standard_input(student: str, output: Path | None, batch_size: int) -> None:
    with tempfile.TemporaryDirectory(prefix="qcrd-predict-") as name:
        source = Path(name, "standard-input.jsonl")
        with source.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        target = output or Path(name, "answers.jsonl")
        numbers = _predict(student, source, target, batch_size)
        if output is None:
            with target.open("rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.flush()
    # Standard output may be a pipe into another program.
    _print_numbers(numbers, sys.stderr)


def _predict(student: str, file: Path, target: Path, batch_size: int) -> dict[str, Any]:
    from qcrd_core.progress import progress
    from qcrd_core.stages.prediction import predict_file

    with progress("Answer", total=0, unit="questions") as bar:
        return predict_file(student, file, target, batch_size=batch_size, bar=bar)


def _print_numbers(numbers: dict[str, Any], stream: TextIO) -> None:
    lines = [
        f"  questions       {numbers['num_questions']:,}",
        f"  without answer  {numbers['num_no_answer']:,}",
    ]
    if numbers.get("num_verifier_failed"):
        lines.append(f"    of them, the verifier failed on {numbers['num_verifier_failed']:,}")
    if numbers["accuracy"] is not None:
        lines.append(f"  accuracy        {numbers['accuracy']:.1%}")
    for name, value in numbers.items():  # of sets of labels, or of fields
        if name.endswith("_f1") or name.startswith("accuracy_of_"):
            lines.append(f"  {name.replace('_', ' '):<15} {value:.1%}")
    if "ece" in numbers:
        lines.append(f"  calibration error {numbers['ece']:.1%} of `confidence` (ECE)")
    if numbers["num_without_confidence"]:
        lines.append(
            f"  without confidence {numbers['num_without_confidence']:,} (the student's validation "
            "answers were too few, or its label replaces rationales without an answer)"
        )
    print("\n".join(lines), file=stream)
