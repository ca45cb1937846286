"""Negatives of a round: hot samples per training question from the student of an earlier round.

Reads: training questions, the checkpoint of round t - j.
Writes: table `rationales` (source = student) in parts of fixed questions, then table `metrics`; if
the metrics part exists, all parts exist. Existing parts are kept. Each part has its own seed, so
the table is the same after any interruption (on one kind of device).

Source: arXiv 2405.13014, self-adversarial negatives: temperature 1.5, the student of j rounds
before. The share of correct samples is measured; `negatives.verify` decides what happens to them,
in `qcrd_core.vote.candidates`. As in the paper, they are negatives by default.
"""

from datetime import UTC, datetime
from typing import Any

import polars as pl
import torch

from data_schemas import Rationales
from qcrd_core.data.answers import extract
from qcrd_core.data.verifier import failed, log_failures
from qcrd_core.ids import derive_seed, fingerprint
from qcrd_core.run.context import RunContext
from qcrd_core.runtime.processes import Emit
from qcrd_core.store.store import part_name
from qcrd_core.student.decoding import DecodeOptions, Written, write
from qcrd_core.student.jobs import SampleNegatives
from qcrd_core.student.metadata import EXPLAIN_PREFIX, written_answers
from qcrd_core.student.prompts import write_prompts
from qcrd_core.student.tokenizer import load_tokenizer
from qcrd_core.student.weights import load_model

QUESTIONS_PER_PART = 512
"""A constant, because parts and their seeds must not change if a run resumes elsewhere."""


def sample_negatives(job: SampleNegatives, emit: Emit) -> dict[str, Any]:
    """Sample the negatives of one round.

    Args:
        job: The run, the round that trains on them, and the round whose student writes them.
        emit: Receives `{"advance": n}` after n rationales.

    Returns:
        `{"num_rows": int, "num_no_answer": int, "correct_share": float | None}`.

    Raises:
        StoreError: If the checkpoint is absent, or the store cannot write a part.
    """
    context, round_ = job.context, job.round
    folder = context.paths.negatives(round_)
    questions = context.read_questions("train").sort("question_id")
    writer = _Writer(context, round_, job.checkpoint)
    stored = set(context.store.list(folder, suffix=".parquet"))
    for number, part in enumerate(questions.iter_slices(QUESTIONS_PER_PART)):
        name = part_name(part.select("question_id"))
        if name in stored:
            emit({"advance": part.height * context.config.negatives.num_samples})
            continue
        frame = writer.sample(part, number, emit)
        context.store.write_table(f"{folder}/{name}", frame, Rationales)
    negatives = context.store.read_table(folder, Rationales)
    log_failures(negatives["error"])
    numbers = _measure(negatives, questions)
    context.write_metrics("negatives", round_, numbers)
    return numbers


class _Writer:
    """The student that writes, and its description in the rows."""

    def __init__(self, context: RunContext, round_: int, checkpoint: int) -> None:
        self.context, self.round = context, round_
        self.config = context.config.negatives
        self.max_new_tokens = self.config.max_new_tokens or context.config.student.max_target_tokens
        rel = context.paths.student(checkpoint)
        folder = context.store.fetch_folder(rel)
        self.name = rel.removeprefix(f"{context.paths.root}/")
        self.tokenizer = load_tokenizer(folder)
        self.model = load_model(folder)
        if torch.cuda.is_available():
            self.model.to("cuda")
        self.answer = written_answers(context.read_spec().answer, context.config.student)
        self.generation = fingerprint(
            {
                "checkpoint": context.store.read_done(rel),
                "prefix": EXPLAIN_PREFIX,
                "sampling_temperature": self.config.sampling_temperature,
                "max_new_tokens": self.max_new_tokens,
            }
        )

    def sample(self, questions: pl.DataFrame, number: int, emit: Emit) -> pl.DataFrame:
        """Write each question's rationales, as rows of table `rationales`."""
        drawn = [self._draw(questions, number, k, emit) for k in range(self.config.num_samples)]
        rows = [row for of_question in zip(*drawn, strict=True) for row in of_question]
        return pl.DataFrame(rows, schema=Rationales.create_empty().schema)

    def _draw(
        self, questions: pl.DataFrame, number: int, index: int, emit: Emit
    ) -> list[dict[str, Any]]:
        """One rationale per question, as rows with sample_idx `index`."""
        # The first sample of a question is the same however many there are.
        key = (number, index) if index else (number,)
        seed = derive_seed(self.context.config.run.seed, "negatives", self.round, *key)
        options = DecodeOptions(
            max_new_tokens=self.max_new_tokens,
            batch_size=self.context.config.evaluation.batch_size,
            sampling_temperature=self.config.sampling_temperature,
            seed=seed,
        )
        prompts = write_prompts(self.tokenizer, EXPLAIN_PREFIX, questions)
        written = write(self.model, self.tokenizer, prompts, options, emit)
        return [
            self._row(row, index, text, seed)
            for row, text in zip(questions.iter_rows(named=True), written, strict=True)
        ]

    def _row(
        self, question: dict[str, Any], index: int, written: Written, seed: int
    ) -> dict[str, Any]:
        is_cut = not written.is_finished
        found = extract(
            written.text,
            self.answer,
            question["choices"],
            question=question["question"],
            is_cut=is_cut,
        )
        return {
            "question_id": question["question_id"],
            "sample_idx": index,
            "source": "student",
            "round": self.round,
            "model": self.name,
            "model_revision": None,
            "generation": self.generation,
            "prompt_hash": None,
            "seed": seed,
            "text": written.text,
            "rationale": found.rationale,
            "answer_raw": found.answer_raw,
            "answer": found.answer,
            "status": "no_answer" if found.answer is None else "ok",
            "error": None if found.error is None else failed(found.error),
            "finish_reason": "length" if is_cut else "stop",
            "num_prompt_tokens": None,
            "num_tokens": written.num_tokens,
            "cumulative_logprob": None,
            "created_at": datetime.now(UTC),
            "run_id": self.context.paths.run_id,
        }


def _measure(negatives: pl.DataFrame, questions: pl.DataFrame) -> dict[str, Any]:
    known = negatives.join(
        questions.select("question_id", "gold_answer").drop_nulls(), on="question_id"
    )
    correct = known.select(pl.col("answer").eq_missing(pl.col("gold_answer")))["answer"]
    return {
        "num_rows": negatives.height,
        "num_no_answer": negatives.filter(pl.col("status") == "no_answer").height,
        "num_cut_at_max_tokens": negatives.filter(pl.col("finish_reason") == "length").height,
        "correct_share": float(correct.sum()) / known.height if known.height else None,
    }
