"""Inference with a student: by the label alone, or by its own rationales.

predict: the label, greedy, with the predict prefix; this is what the paper measures.
explain_then_predict: one greedy rationale with the explain prefix; its answer counts.
vote_k: several sampled rationales; their most frequent answer counts.

If no rationale has an answer, the label with the predict prefix counts.

Each answer has a raw confidence: the probability that the student gives its own greedy text, or the
share of the sampled rationales that agree. `qcrd_core.student.confidence` calibrates it.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from qcrd_core.data.answers import extract, read_answer
from qcrd_core.ids import derive_seed
from qcrd_core.runtime.processes import Emit
from qcrd_core.student.decoding import DecodeOptions, Written, write
from qcrd_core.student.metadata import StudentMetadata
from qcrd_core.student.prompts import write_prompts
from qcrd_core.student.tokenizer import check_lengths


@dataclass(frozen=True)
class Answer:
    """A student's text and the answer in it."""

    text: str
    answer: str | None
    """Canonical; None if no answer can be read."""
    rationale: str | None = None
    """Reasoning before the answer, if inference writes one."""
    raw_confidence: float | None = None
    """In [0, 1], not calibrated; None for a label that replaces rationales without an answer, as
    its probability does not compare with that of a rationale."""
    num_tokens: int = 0
    """Tokens that were written for it."""
    is_finished: bool = True
    """Whether the text ended before the length limit."""
    error: str | None = None
    """Why a verifier failed on it; None if it did not."""


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
        self,
        model: Any,
        tokenizer: Any,
        metadata: StudentMetadata,
        *,
        batch_size: int,
        are_alone: bool = False,
    ) -> None:
        """Prepare the student.

        Args:
            model: T5-type or causal Hugging Face model.
            tokenizer: Its tokenizer.
            metadata: Prefixes, lengths, form of answers, and kind of inference.
            batch_size: Texts per batch.
            are_alone: Whether each question is answered as if it were the only one: its sampled
                rationales do not depend on its place among the questions.
        """
        self.model, self.tokenizer, self.metadata = model, tokenizer, metadata
        self.batch_size, self.are_alone = batch_size, are_alone

    def check_lengths(self, questions: pl.DataFrame) -> int:
        """Refuse questions that are too long; see `qcrd_core.student.tokenizer.check_lengths`."""
        return check_lengths(
            self.tokenizer,
            questions,
            prefix=self.metadata.predict_prefix,
            limit=self.metadata.max_input_tokens,
            end=self.model.config.is_encoder_decoder,
        )

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
        answers = [_counted(of_one) for of_one in zip(*drawn, strict=True)]
        silent = [row for row, item in enumerate(answers) if item.answer is None]
        rest = questions.filter(pl.Series([item.answer is None for item in answers]))
        for row, item in zip(silent, self._predict(rest, _ignore), strict=True):
            num_tokens = answers[row].num_tokens + item.num_tokens
            answers[row] = replace(item, raw_confidence=None, num_tokens=num_tokens)
        return answers, len(silent)

    def _predict(self, questions: pl.DataFrame, emit: Emit) -> list[Answer]:
        options = DecodeOptions(self.metadata.max_new_tokens, self.batch_size)
        written = self._write(self.metadata.predict_prefix, questions, options, emit)
        return [self._label(*row) for row in zip(written, *_asked(questions), strict=True)]

    def _label(self, item: Written, choices: Sequence[str] | None, question: str) -> Answer:
        found = read_answer(item.text, self.metadata.answer, choices, question)
        return Answer(
            item.text,
            found.answer,
            raw_confidence=_probability(item),
            num_tokens=item.num_tokens,
            is_finished=item.is_finished,
            error=found.error,
        )

    def _explain(self, questions: pl.DataFrame, number: int, emit: Emit) -> list[Answer]:
        options = DecodeOptions(
            self.metadata.max_rationale_tokens,
            self.batch_size,
            sampling_temperature=self.metadata.sampling_temperature,
            seed=derive_seed(self.metadata.seed, "vote", number),
            are_alone=self.are_alone,
        )
        written = self._write(self.metadata.explain_prefix, questions, options, emit)
        return [self._read(*row) for row in zip(written, *_asked(questions), strict=True)]

    def _read(self, item: Written, choices: Sequence[str] | None, question: str) -> Answer:
        is_cut = not item.is_finished
        found = extract(item.text, self.metadata.answer, choices, question=question, is_cut=is_cut)
        return Answer(
            item.text,
            found.answer,
            rationale=found.rationale,
            raw_confidence=_probability(item),
            num_tokens=item.num_tokens,
            is_finished=item.is_finished,
            error=found.error,
        )

    def _write(
        self, prefix: str, questions: pl.DataFrame, options: DecodeOptions, emit: Emit
    ) -> list[Written]:
        prompts = write_prompts(self.tokenizer, prefix, questions)
        return write(self.model, self.tokenizer, prompts, options, emit)


def _counted(answers: Sequence[Answer]) -> Answer:
    """The majority of one question's rationales; if they are several, with the share that agree."""
    chosen = majority(answers)
    if len(answers) == 1:
        return chosen
    num_agreeing = sum(item.answer == chosen.answer for item in answers)
    return replace(
        chosen,
        raw_confidence=num_agreeing / len(answers),
        num_tokens=sum(item.num_tokens for item in answers),
    )


def _asked(questions: pl.DataFrame) -> tuple[pl.Series, pl.Series]:
    """What reading an answer needs of each question."""
    return questions["choices"], questions["question"]


def _probability(item: Written) -> float | None:
    # Rounding may put the logarithm of a certain text slightly above 0.
    return None if item.logprob is None else min(1.0, math.exp(item.logprob))


def _ignore(event: dict[str, Any]) -> None:
    del event
