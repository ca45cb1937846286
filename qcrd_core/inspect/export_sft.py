"""Export a run's rationales as fine-tuning data for TRL or LLaMA-Factory.

    sft          one row per positive rationale: the question, then reasoning and answer; equal
                 rationales of a question once
    preference   one row per pair: a positive as chosen, a negative of the same question as rejected

Each row has an `id`, `<question id>#<sample>` of its positive. TRL's rows are conversations
(`prompt`, and `completion` or `chosen` and `rejected`, as messages). LLaMA-Factory's rows have its
alpaca format; its dataset_info.json is written to the same folder.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from qcrd_core.data.spec import DatasetSpec
from qcrd_core.errors import ConfigError, DataError
from qcrd_core.inspect.view import View
from qcrd_core.store.parts import collect
from qcrd_core.store.target import new_target

Trainer = Literal["trl", "llama-factory"]
Kind = Literal["sft", "preference"]

_COLUMNS = (
    "question_id", "sample_idx", "source", "rationale", "reasoning", "answer_raw", "status",
    "question", "in_majority", "polarity", "quality_score", "generation",
)  # fmt: skip
_SAME = ["question_id", "is_positive", "rationale", "answer_raw"]
_INFO: dict[str, dict[str, Any]] = {
    "sft": {"columns": {"prompt": "instruction", "query": "input", "response": "output"}},
    "preference": {
        "ranking": True,
        "columns": {
            "prompt": "instruction",
            "query": "input",
            "chosen": "chosen",
            "rejected": "rejected",
        },
    },
}


@dataclass(frozen=True)
class Exported:
    """Counts of what was written."""

    num_rows: int
    num_questions: int
    num_repeated: int
    """Rationales left out because they are word for word another one of their question."""
    num_without_pair: int
    """Questions that have only positives or only negatives, and so give no preference pair."""


def export_sft(
    view: View, target: Path, *, trainer: Trainer, kind: Kind, instruction: str | None = None
) -> Exported:
    """Write a run's rationales as fine-tuning data.

    Polarity is taken from the run's last scores or, before the first round, from the vote. Pairs
    match the positive with the highest quality score with the negative with the lowest score of
    the same question, the second highest with the second lowest, and so on.

    Args:
        view: A run.
        target: New .jsonl file. LLaMA-Factory's dataset_info.json is written to the same folder.
        trainer: The tool that will read the file.
        kind: Single texts or pairs.
        instruction: Text to put before every question.

    Returns:
        Counts.

    Raises:
        ConfigError: If the target exists or does not end in .jsonl.
        DataError: If there is nothing to write, or a part is damaged.
    """
    if target.suffix != ".jsonl":
        msg = f"TARGET must end in .jsonl; got {target}. Rename it."
        raise ConfigError(msg)
    with new_target(target, "TARGET") as temporary:
        done = _write(view, temporary, trainer, kind, instruction)
    if trainer == "llama-factory":
        _register(target, kind)
    return done


def _write(
    view: View, target: Path, trainer: Trainer, kind: Kind, instruction: str | None
) -> Exported:
    spec = view.store.read_json(view.paths.dataset, DatasetSpec)
    all_rows = _sides(view)
    # The best of equal texts; a trainer would see the question as often as the teacher agreed.
    rows = all_rows.unique(_SAME, keep="first", maintain_order=True)
    if kind == "sft":
        found = rows.filter("is_positive").rename(
            {"rationale": "chosen", "answer_raw": "of_chosen"}
        )
        found = found.with_columns(
            rejected=pl.lit(None, pl.String), of_rejected=pl.lit(None, pl.String)
        )
    else:
        found = _pairs(rows)
    if found.is_empty():
        raise DataError(_nothing(view.name, kind, rows["is_positive"]))
    turns = collect(view.questions().select("question_id", "messages"), view.name)
    found = found.join(turns, on="question_id", how="left", maintain_order="left")
    lines = (_line(row, spec, trainer, instruction) for row in found.iter_rows(named=True))
    with target.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    num_questions = found["question_id"].n_unique()
    num_without = 0 if kind == "sft" else rows["question_id"].n_unique() - num_questions
    return Exported(found.height, num_questions, all_rows.height - rows.height, num_without)


def _nothing(run: str, kind: Kind, sides: pl.Series) -> str:
    positives = int(sides.sum())
    counts = f"{positives} positive and {sides.len() - positives} negative rationales"
    if kind == "sft":
        return f"There is nothing to export as sft: {run} has {counts}."
    return (
        f"There is nothing to export as preference: {run} has {counts}, but no question has both. "
        "Export with `--kind sft`."
    )


def _sides(view: View) -> pl.DataFrame:
    """Rationales with a text and a polarity, best first."""
    lazy = _condensed(view, view.rows(_COLUMNS).with_columns(view.taught))
    by_vote = pl.when(pl.col("status") != "failed").then("in_majority")
    side = pl.coalesce(pl.col("polarity") == "positive", by_vote)
    has_text = pl.col("rationale").str.strip_chars().str.len_chars() > 0
    rows = collect(lazy.with_columns(is_positive=side).filter(has_text), view.name)
    has_scores = rows["polarity"].count() > 0
    if has_scores:
        rows = rows.filter(pl.col("polarity").is_not_null())
    order = ["question_id", "quality_score", "source", "sample_idx"]
    rows = rows.filter(pl.col("is_positive").is_not_null())
    return rows.sort(order, descending=[False, True, False, False], nulls_last=True)


def _condensed(view: View, rows: pl.LazyFrame) -> pl.LazyFrame:
    """Put the run's rewrites in the place of the rationales that they condense."""
    keys = ("question_id", "source", "sample_idx")
    shorter = (
        view.condensed()
        .drop_nulls("rationale")
        .select("question_id", pl.col("source").cast(pl.String), "sample_idx", shorter="rationale")
    )
    joined = rows.join(shorter, on=keys, how="left", maintain_order="left")
    return joined.with_columns(rationale=pl.coalesce("shorter", "rationale")).drop("shorter")


def _pairs(rows: pl.DataFrame) -> pl.DataFrame:
    number = pl.int_range(pl.len()).over("question_id").alias("number")
    chosen = rows.filter("is_positive").with_columns(number)
    rejected = rows.filter(~pl.col("is_positive")).reverse().with_columns(number)
    chosen = chosen.select(
        "question_id",
        "sample_idx",
        "question",
        "number",
        chosen="rationale",
        of_chosen="answer_raw",
    )
    rejected = rejected.select(
        "question_id", "number", rejected="rationale", of_rejected="answer_raw"
    )
    return chosen.join(rejected, on=["question_id", "number"], how="inner").sort(
        "question_id", "number"
    )


def _line(
    row: dict[str, Any], spec: DatasetSpec, trainer: Trainer, instruction: str | None
) -> dict[str, Any]:
    texts = {
        name: _completion(row[name], row[f"of_{name}"], spec)
        for name in ("chosen", "rejected")
        if row[name] is not None
    }
    name = {"id": f"{row['question_id']}#{row['sample_idx']}"}
    if trainer == "llama-factory":
        asked = {**name, "instruction": instruction or row["question"]}
        asked["input"] = row["question"] if instruction else ""
        return {**asked, **(texts if "rejected" in texts else {"output": texts["chosen"]})}
    turns = [{"role": "user", "content": row["question"]}]
    if row["messages"] is not None:
        turns = json.loads(row["messages"])
    if instruction:  # before the first question, as in the teacher's prompt
        first = next(turn for turn in turns if turn["role"] == "user")
        first["content"] = f"{instruction}\n\n{first['content']}"
    answers = {name: [{"role": "assistant", "content": text}] for name, text in texts.items()}
    if "rejected" not in answers:
        answers = {"completion": answers["chosen"]}
    return {**name, "prompt": turns, **answers}


def _completion(rationale: str, answer: str | None, spec: DatasetSpec) -> str:
    """The rationale, then the data set's answer marker and the answer, if there are both."""
    if answer is None or spec.answer.marker is None:
        return rationale
    return f"{rationale} {spec.answer.ending(answer)}"


def _register(target: Path, kind: Kind) -> None:
    path = target.with_name("dataset_info.json")
    known: object = {}
    if path.exists():
        try:
            known = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            known = None
        if not isinstance(known, dict):
            msg = (
                f"{path} must be LLaMA-Factory's JSON object of data sets; it is not, so {target} "
                "was written and not registered in it. Repair the file and add the entry."
            )
            raise DataError(msg)
    assert isinstance(known, dict)
    known[target.stem] = {"file_name": target.name, **_INFO[kind]}
    temporary = path.with_name(f"_tmp-{os.getpid()}-{path.name}")
    temporary.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)
