"""How a student comes to an answer: by the label alone, or by rationales of its own.

predict: the label, greedy, under the predict prefix; what the paper measures.
explain_then_predict: a rationale, greedy, under the explain prefix; the answer it comes to counts.
vote_k: several sampled rationales; the answer that most of them come to counts.

Where no rationale comes to an answer, the label under the predict prefix counts.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from qcrd_core.data.answers import canonical, extract
from qcrd_core.ids import derive_seed
from qcrd_core.runtime.processes import Emit
from qcrd_core.student.decoding import DecodeOptions, write
from qcrd_core.student.metadata import StudentAbout


@dataclass(frozen=True)
class Answer:
    """What a student wrote, and what it comes to."""

    text: str
    answer: str | None
    """Canonical; None if none can be read."""


def majority(answers: Sequence[Answer]) -> Answer:
    """Take the answer that most texts come to.

    Args:
        answers: Of one question, at least one.

    Returns:
        The first text with that answer; of equally frequent answers the one seen first. Texts
        without an answer do not vote; if none has one, the first text.
    """
    votes = Counter(item.answer for item in answers if item.answer is not None)
    if not votes:
        return answers[0]
    winner = votes.most_common(1)[0][0]
    return next(item for item in answers if item.answer == winner)


class Answerer:
    """A student that answers as it is described in its `qcrd.json`."""

    def __init__(self, model: Any, tokenizer: Any, about: StudentAbout, *, batch_size: int) -> None:
        """Keep the student.

        Args:
            model: T5-type or causal Hugging Face model.
            tokenizer: Its tokenizer.
            about: Prefixes, lengths, answers, and how it infers.
            batch_size: Texts written at once.
        """
        self.model, self.tokenizer, self.about = model, tokenizer, about
        self.batch_size = batch_size

    def answer(self, questions: pl.DataFrame, emit: Emit) -> tuple[list[Answer], int]:
        """Answer questions.

        Args:
            questions: Columns question, choices.
            emit: Receives `{"advance": n}` after n texts; `about.num_votes` a question.

        Returns:
            One answer a question, in order, and how many questions had no rationale with an answer
            though rationales were asked for.
        """
        if self.about.infer == "predict":
            return self._predict(questions, emit), 0
        drawn = [self._explain(questions, k, emit) for k in range(self.about.num_votes)]
        answers = [majority(of_one) for of_one in zip(*drawn, strict=True)]
        silent = [row for row, item in enumerate(answers) if item.answer is None]
        rest = questions.filter(pl.Series([item.answer is None for item in answers]))
        for row, item in zip(silent, self._predict(rest, _ignore), strict=True):
            answers[row] = item
        return answers, len(silent)

    def _predict(self, questions: pl.DataFrame, emit: Emit) -> list[Answer]:
        options = DecodeOptions(self.about.max_new_tokens, self.batch_size)
        texts = self._write(self.about.predict_prefix, questions, options, emit)
        return [
            Answer(text, canonical(text, self.about.answer, choices))
            for text, choices in zip(texts, questions["choices"], strict=True)
        ]

    def _explain(self, questions: pl.DataFrame, number: int, emit: Emit) -> list[Answer]:
        options = DecodeOptions(
            self.about.max_rationale_tokens,
            self.batch_size,
            sampling_temperature=self.about.sampling_temperature,
            seed=derive_seed(self.about.seed, "vote", number),
        )
        texts = self._write(self.about.explain_prefix, questions, options, emit)
        return [
            Answer(text, extract(text, self.about.answer, choices).answer)
            for text, choices in zip(texts, questions["choices"], strict=True)
        ]

    def _write(
        self, prefix: str, questions: pl.DataFrame, options: DecodeOptions, emit: Emit
    ) -> list[str]:
        prompts = [prefix + question for question in questions["question"]]
        written = write(self.model, self.tokenizer, prompts, options, emit)
        return [item.text for item in written]


def _ignore(event: dict[str, Any]) -> None:
    del event
