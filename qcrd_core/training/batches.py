"""From the scores table to micro-batches of token ids.

The order of the data is a pure function of (seed, epoch), and a step's questions a pure function
of its number: a resumed run sees exactly the batches that the uninterrupted one would have seen.

Shape letters: B questions in the micro-batch, R rationales in it, P positives and N negatives of
the question that has most of them, T tokens.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from qcrd_core.config.models import StudentSection
from qcrd_core.data.equations import false_step
from qcrd_core.ids import derive_seed
from qcrd_core.student.metadata import EXPLAIN_PREFIX
from qcrd_core.student.prompts import write_prompts
from qcrd_core.student.tokenizer import encode_texts, pad_rows
from qcrd_core.training.losses import first_divergence


@dataclass(frozen=True)
class Rationale:
    """One tokenised rationale."""

    ids: list[int]
    is_positive: bool
    weight: float
    """s of a positive, 1 - s of a negative; 1 without a discriminator."""
    first: int = 0
    """First token that counts in its cross entropy."""


@dataclass(frozen=True)
class Example:
    """One training question, tokenised."""

    question_id: str
    predict_ids: list[int]
    explain_ids: list[int]
    label_ids: list[int]
    rationales: tuple[Rationale, ...]


@dataclass(frozen=True)
class Batch:
    """A micro-batch. Masks are 1 on real tokens and have the shape of their ids."""

    question_ids: list[str]
    prompt_ids: Tensor
    """Predict prompts, then explain prompts, [2B, T]."""
    prompt_mask: Tensor
    label_ids: Tensor
    """[B, T]."""
    label_mask: Tensor
    rationale_ids: Tensor
    """[R, T]; questions without rationales add one of the end token that no term reads."""
    rationale_mask: Tensor
    question: Tensor
    """Question of each rationale, [R], in [0, B)."""
    positive: Tensor
    """Rationale index of each positive, [B, P]; -1 where there is none."""
    negative: Tensor
    """The same of each negative, [B, N]."""
    first: Tensor
    """First token of each rationale that counts, [R]."""
    weight: Tensor
    """Weight of each rationale, [R]: s of a positive, 1 - s of a negative."""
    draw: Tensor
    """Random numbers in [0, 1) for sampling a positive and a negative, [B, 2]."""

    def to(self, device: torch.device) -> "Batch":
        """Copy the tensors to a device."""
        moved: dict[str, Any] = {
            name: value.to(device) if isinstance(value, Tensor) else value
            for name, value in self.__dict__.items()
        }
        return Batch(**moved)


def make_examples(
    labels: pl.DataFrame,
    scores: pl.DataFrame,
    tokenizer: Any,
    student: StudentSection,
    *,
    end: bool,
    find_false_steps: bool = False,
) -> tuple[list[Example], int]:
    """Tokenise the questions and rationales of a round.

    Args:
        labels: question_id, question, label and, for conversations, messages: one row per training
            question.
        scores: Table `scores` of the round.
        tokenizer: The student's.
        student: Prefixes and length limits.
        end: Whether prompts end with the end token, as encoder inputs do.
        find_false_steps: Let a negative count from the result of its first false equation on, if
            one is known to be false.

    Returns:
        Examples in the order of question_id, and the number of rationales left out because they
        exceed `max_target_tokens`.
    """
    labels = labels.sort("question_id")
    predict, explain = (
        encode_texts(tokenizer, write_prompts(tokenizer, prefix, labels), end=end)
        for prefix in (student.predict_prefix, EXPLAIN_PREFIX)
    )
    label_ids = encode_texts(tokenizer, labels["label"].to_list(), end=True)
    by_question: dict[str, list[Rationale]] = defaultdict(list)
    too_long = 0
    ids = encode_texts(tokenizer, scores["rationale"].to_list(), end=True)
    first = [0] * len(ids)
    if find_false_steps:
        first = _first_false_tokens(tokenizer, scores)
    rows = scores.select("question_id", "polarity", "rationale_weight").rows()
    for row, start, (question_id, polarity, weight) in zip(ids, first, rows, strict=True):
        # Cut short, it would be learned as if it were whole: it is left out and counted.
        if len(row) > student.max_target_tokens:
            too_long += 1
            continue
        by_question[question_id].append(Rationale(row, polarity == "positive", weight, start))
    # A question without rationales stays: its label is learned all the same.
    examples = [
        Example(question_id, p, e, y, tuple(by_question[question_id]))
        for question_id, p, e, y in zip(
            labels["question_id"].to_list(), predict, explain, label_ids, strict=True
        )
    ]
    return examples, too_long


def _first_false_tokens(tokenizer: Any, scores: pl.DataFrame) -> list[int]:
    """Token with which the result of the first false equation begins; 0 if there is none."""
    first = [0] * scores.height
    for row, (text, polarity) in enumerate(scores.select("rationale", "polarity").rows()):
        start = false_step(text) if polarity == "negative" else None
        if start is None:
            continue
        spans = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        start += len(text) - start - len(text[start:].lstrip())  # a token may hold the space too
        inside = (index for index, (_, stop) in enumerate(spans["offset_mapping"]) if stop > start)
        first[row] = next(inside, 0)
    return first


def skip_shared_tokens(examples: Sequence[Example]) -> tuple[list[Example], int]:
    """Let each negative count from its first divergence from the positives of its question.

    One that counts from its false step keeps it.

    Args:
        examples: Tokenised questions.

    Returns:
        The same with `first` set, and the number of negatives left out because they repeat a
        positive to the end.
    """
    kept, num_copies = [], 0
    for example in examples:
        positives = [r.ids for r in example.rationales if r.is_positive]
        rationales = [
            r if r.is_positive or r.first else replace(r, first=first_divergence(r.ids, positives))
            for r in example.rationales
        ]
        # Of a copy of a positive no token is left to push down.
        distinct = tuple(r for r in rationales if r.first < len(r.ids))
        num_copies += len(rationales) - len(distinct)
        kept.append(replace(example, rationales=distinct))
    return kept, num_copies


def batch_rows(num_examples: int, batch_size: int, step: int, seed: int) -> list[int]:
    """Which examples an optimiser step reads: a window of an endless row of permutations.

    Args:
        num_examples: Size of the training set.
        batch_size: Questions per step, over all devices.
        step: Global step, from 0.
        seed: Run seed.

    Returns:
        `batch_size` example indices.
    """
    rows: list[int] = []
    position = step * batch_size  # in the endless row
    # More than one turn if the batch reaches over the end of an epoch.
    while len(rows) < batch_size:
        epoch, offset = divmod(position, num_examples)
        order = np.random.default_rng(derive_seed(seed, "data order", epoch)).permutation(
            num_examples
        )
        taken = order[offset : offset + batch_size - len(rows)].tolist()
        rows += taken
        position += len(taken)
    return rows


def batch_draws(batch_size: int, step: int, seed: int) -> list[list[float]]:
    """Random numbers that choose among the rationales of an optimiser step's questions.

    Args:
        batch_size: Questions per step, over all devices.
        step: Global step, from 0.
        seed: Run seed.

    Returns:
        Numbers in [0, 1), [batch_size, 2], in the order of `batch_rows`.
    """
    source = np.random.default_rng(derive_seed(seed, "selection", step))
    # A column for the positive and one for the negative, drawn even if only one of them is sampled:
    # runs that differ in one selection see the same numbers for the other.
    draws: list[list[float]] = source.random((batch_size, 2)).tolist()  # [B, 2]
    return draws


def collate(
    examples: Sequence[Example],
    pad_id: int,
    end_id: int,
    draws: Sequence[Sequence[float]] | None = None,
) -> Batch:
    """Pad examples into one micro-batch.

    Args:
        examples: B examples.
        pad_id: Padding token.
        end_id: End token.
        draws: From `batch_draws`, [B, 2]; None if nothing is sampled, which gives zeros.

    Returns:
        The batch, on the CPU.
    """
    # Predict prompts first: prompt i and prompt B + i are the two of question i.
    prompts = [e.predict_ids for e in examples] + [e.explain_ids for e in examples]  # 2B
    rationales = [(i, r) for i, e in enumerate(examples) for r in e.rationales]  # R
    slots: dict[bool, list[list[int]]] = {
        True: [[] for _ in examples],
        False: [[] for _ in examples],
    }
    for index, (question, rationale) in enumerate(rationales):
        slots[rationale.is_positive][question].append(index)
    # Without any rationale a stand-in keeps R >= 1: the objective scores it in the place of a
    # missing positive. No slot points to it, so no term reads it.
    ids = [r.ids for _, r in rationales] or [[end_id]]
    prompt_ids, prompt_mask = pad_rows(prompts, pad_id)  # [2B, T]
    label_ids, label_mask = pad_rows([e.label_ids for e in examples], pad_id)  # [B, T]
    rationale_ids, rationale_mask = pad_rows(ids, pad_id)  # [R, T]
    return Batch(
        question_ids=[e.question_id for e in examples],
        prompt_ids=prompt_ids,
        prompt_mask=prompt_mask,
        label_ids=label_ids,
        label_mask=label_mask,
        rationale_ids=rationale_ids,
        rationale_mask=rationale_mask,
        question=torch.tensor([i for i, _ in rationales] or [0]),  # [R]
        positive=pad_rows(slots[True], -1)[0],  # [B, P]
        negative=pad_rows(slots[False], -1)[0],  # [B, N]
        first=torch.tensor([r.first for _, r in rationales] or [0]),  # [R]
        weight=torch.tensor([r.weight for _, r in rationales] or [0.0]),  # [R]
        draw=torch.tensor(draws or [[0.0, 0.0]] * len(examples)),  # [B, 2]
    )
