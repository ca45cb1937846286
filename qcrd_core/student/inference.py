"""Inference with a student: by the label alone, or by its own rationales.

predict: the label, greedy, with the predict prefix; this is what the paper measures.
explain_then_predict: one greedy rationale with the explain prefix; its answer counts.
vote_k: several sampled rationales; their most frequent answer counts.

If no rationale has an answer, the label with the predict prefix counts.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from qcrd_core.data.answers import canonical, extract
from qcrd_core.ids import derive_seed
from qcrd_core.runtime.processes import Emit
from qcrd_core.student.decoding import DecodeOptions, Written, write
from qcrd_core.student.metadata import StudentMetadata
from qcrd_core.student.prompts import write_prompts


@dataclass(frozen=True)
class Answer:
    """A student's text and the answer in it."""

    text: str
    answer: str | None
    """Canonical; None if no answer can be read."""


def majority(answers: Sequence[Answer]) -> Answer:
    """Find the most frequent answer.

    Args:
        answers: Answers to one question, at least one.

    Returns:
        The first text with the most frequent answer; if several are equally frequent, the one that
        occurs first. Texts without an answer do not vote; if none has one, the first text.
    """
    votes = Counter(item.answer for item in answers if item.answer is not None)
    if not votes:
        return answers[0]
    winner = votes.most_common(1)[0][0]
    return next(item for item in answers if item.answer == winner)


class Answerer:
    """A student that answers as its `qcrd.json` describes."""

    def __init__(
        self, model: Any, tokenizer: Any, metadata: StudentMetadata, *, batch_size: int
    ) -> None:
        """Prepare the student.

        Args:
            model: T5-type or causal Hugging Face model.
            tokenizer: Its tokenizer.
            metadata: Prefixes, lengths, form of answers, and kind of inference.
            batch_size: Texts per batch.
        """
        self.model, self.tokenizer, self.metadata = model, tokenizer, metadata
        self.batch_size = batch_size

    def answer(self, questions: pl.DataFrame, emit: Emit) -> tuple[list[Answer], int]:
        """Answer questions.

        Args:
            questions: Columns question, choices.
            emit: Receives `{"advance": n}` after n texts; `metadata.num_votes` texts per question.

        Returns:
            One answer per question, in order; and the number of questions without an answer in any
            rationale, 0 if inference uses no rationales.
        """
        if self.metadata.infer == "predict":
            return self._predict(questions, emit), 0
        drawn = [self._explain(questions, k, emit) for k in range(self.metadata.num_votes)]
        answers = [majority(of_one) for of_one in zip(*drawn, strict=True)]
        silent = [row for row, item in enumerate(answers) if item.answer is None]
        rest = questions.filter(pl.Series([item.answer is None for item in answers]))
        for row, item in zip(silent, self._predict(rest, _ignore), strict=True):
            answers[row] = item
        return answers, len(silent)

    def _predict(self, questions: pl.DataFrame, emit: Emit) -> list[Answer]:
        options = DecodeOptions(self.metadata.max_new_tokens, self.batch_size)
        written = self._write(self.metadata.predict_prefix, questions, options, emit)
        return [
            Answer(item.text, canonical(item.text, self.metadata.answer, choices))
            for item, choices in zip(written, questions["choices"], strict=True)
        ]

    def _explain(self, questions: pl.DataFrame, number: int, emit: Emit) -> list[Answer]:
        options = DecodeOptions(
            self.metadata.max_rationale_tokens,
            self.batch_size,
            sampling_temperature=self.metadata.sampling_temperature,
            seed=derive_seed(self.metadata.seed, "vote", number),
        )
        written = self._write(self.metadata.explain_prefix, questions, options, emit)
        spec = self.metadata.answer
        return [
            Answer(item.text, extract(item.text, spec, choices, is_cut=not item.is_finished).answer)
            for item, choices in zip(written, questions["choices"], strict=True)
        ]

    def _write(
        self, prefix: str, questions: pl.DataFrame, options: DecodeOptions, emit: Emit
    ) -> list[Written]:
        prompts = write_prompts(self.tokenizer, prefix, questions)
        return write(self.model, self.tokenizer, prompts, options, emit)


def _ignore(event: dict[str, Any]) -> None:
    del event
