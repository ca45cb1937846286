"""Five folds of SVAMP with GPT-3.5's rationales, for `benchmarks/gpu_claim.py`.

Each of the 1,000 questions is a test question of one fold. Training questions of a fold are those
of the other folds that have rationales; the 300 without any are tested only.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import polars as pl

from qcrd_core.data.answers import AnswerSpec, canonical, extract
from qcrd_core.ids import derive_seed

NUM_FOLDS = 5
_ANSWER = AnswerSpec(kind="number", marker="The answer is")
_RAW = AnswerSpec(kind="number", marker=None)


@dataclass(frozen=True, eq=False)
class Fold:
    """Questions and rationales of one fold."""

    labels: pl.DataFrame
    """question_id, question, label of the training questions."""
    test: pl.DataFrame
    """question_id, question, gold_answer."""
    samples: pl.DataFrame
    """question_id, sample_idx, rationale, answer, gold_answer, majority, of what is trained on."""
    answer: ClassVar[AnswerSpec] = _ANSWER
    schema: ClassVar[list[str]] = [
        "question_id",
        "polarity",
        "rationale_weight",
        "rationale",
        "source",
    ]

    def rationales(self, positives: str) -> pl.DataFrame:
        """Rows for `make_examples`; the reference is the gold answer or the majority."""
        reference = pl.col("gold_answer" if positives == "gold" else "majority")
        known = self.samples.drop_nulls("answer").filter(reference.is_not_null())
        return known.select(
            "question_id",
            polarity=pl.when(pl.col("answer") == reference)
            .then(pl.lit("positive"))
            .otherwise(pl.lit("negative")),
            rationale_weight=pl.lit(1.0),
            rationale=pl.format("{} {} {}.", "rationale", pl.lit(_ANSWER.marker), "answer"),
            source=pl.lit("teacher"),
        )


def prepare_questions(folder: Path, target: Path) -> None:
    """Read MCC-KD's files and write questions and samples.

    Args:
        folder: train, valid and test.jsonl of MCC-KD.
        target: Folder for questions.parquet and samples.parquet.
    """
    target.mkdir(parents=True, exist_ok=True)
    questions, samples = [], []
    for split in ("train", "valid", "test"):
        for number, row in enumerate(pl.read_ndjson(folder / f"{split}.jsonl").to_dicts()):
            question_id = f"{split}-{number:03d}"
            gold = canonical(str(row["label"]), _RAW, None)
            fold = derive_seed("svamp folds", question_id) % NUM_FOLDS
            questions.append((question_id, row["question"], gold, fold))
            for index, text in enumerate(row.get("rationales") or []):
                found = extract(text, _RAW, None)
                samples.append((question_id, index, found.rationale or text, found.answer))
    pl.DataFrame(
        questions, schema=["question_id", "question", "gold_answer", "fold"], orient="row"
    ).write_parquet(target / "questions.parquet")
    pl.DataFrame(
        samples, schema=["question_id", "sample_idx", "rationale", "answer"], orient="row"
    ).write_parquet(target / "samples.parquet")
    print(f"{target}  {len(questions)} questions, {len(samples)} rationales")


def read_fold(folder: Path, number: int) -> Fold:
    """Read one fold of what `prepare_questions` wrote."""
    questions = pl.read_parquet(folder / "questions.parquet")
    samples = pl.read_parquet(folder / "samples.parquet")
    inside = questions.filter(pl.col("fold") != number)
    taught = samples.join(inside.select("question_id", "gold_answer"), on="question_id")
    counts = taught.drop_nulls("answer").group_by("question_id", "answer").len()
    most = counts.sort("len", "answer", descending=[True, False])
    majority = most.unique("question_id", keep="first", maintain_order=True)
    return Fold(
        labels=inside.join(samples, on="question_id", how="semi").select(
            "question_id", "question", label="gold_answer"
        ),
        test=questions.filter(pl.col("fold") == number).select(
            "question_id", "question", "gold_answer"
        ),
        samples=taught.join(
            majority.select("question_id", majority="answer"), on="question_id", how="left"
        ),
    )
