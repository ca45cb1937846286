"""Writing with a student: greedy answers and sampled rationales, batch by batch.

Prompts are sorted by length so that a batch holds little padding, and each batch has its own seed:
the same prompts in the same batches give the same texts, whatever was generated before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from qcrd_core.ids import derive_seed
from qcrd_core.processes import Emit
from qcrd_core.student.batches import encode_texts


@dataclass(frozen=True)
class Written:
    """What a student wrote for one prompt."""

    text: str
    num_tokens: int
    """Tokens before the end token."""
    is_finished: bool
    """Whether the end token came before the length limit."""


@dataclass(frozen=True)
class DecodeOptions:
    """How a student writes."""

    max_new_tokens: int
    batch_size: int
    sampling_temperature: float | None = None
    """None is greedy."""
    seed: int = 0


@torch.no_grad()
def write(
    model: Any, tokenizer: Any, prompts: Sequence[str], options: DecodeOptions, emit: Emit
) -> list[Written]:
    """Let a student write once for each prompt.

    Args:
        model: T5-type or causal Hugging Face model.
        tokenizer: Its tokenizer.
        prompts: Prompts with their prefix.
        options: Length, batch, temperature, seed.
        emit: Receives `{"advance": n}` after each batch of n prompts.

    Returns:
        One text a prompt, in the prompts' order.
    """
    model.eval()
    is_seq2seq = model.config.is_encoder_decoder
    ids = encode_texts(tokenizer, prompts, end=is_seq2seq)
    order = sorted(range(len(ids)), key=lambda row: (len(ids[row]), row))
    written: dict[int, Written] = {}
    for first in range(0, len(order), options.batch_size):
        rows = order[first : first + options.batch_size]
        torch.manual_seed(derive_seed(options.seed, "decode", first))
        # A causal model continues the last token, so its padding goes to the left.
        side = "right" if is_seq2seq else "left"
        batch = tokenizer.pad(
            {"input_ids": [ids[row] for row in rows]}, return_tensors="pt", padding_side=side
        ).to(model.device)
        output = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            do_sample=options.sampling_temperature is not None,
            temperature=options.sampling_temperature,
            top_k=0 if options.sampling_temperature is not None else None,
            max_new_tokens=options.max_new_tokens,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        start = 1 if is_seq2seq else batch["input_ids"].shape[1]
        for row, tokens in zip(rows, output[:, start:].tolist(), strict=True):
            written[row] = _read(tokens, tokenizer)
        emit({"advance": len(rows)})
    return [written[row] for row in range(len(ids))]


def _read(tokens: list[int], tokenizer: Any) -> Written:
    is_finished = tokenizer.eos_token_id in tokens
    if is_finished:
        tokens = tokens[: tokens.index(tokenizer.eos_token_id)]
    text = tokenizer.decode(tokens, skip_special_tokens=True).strip()
    return Written(text, len(tokens), is_finished)
