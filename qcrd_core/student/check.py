"""Is a model one that qcrd can train? Found out on a few tokens, before the teacher is paid.

Our loss reads each prompt once and shares its keys and values among the targets; a student writes
token by token with a cache of our own. Both must give what the model gives by itself. An
architecture for which they do not, or that cannot run here at all, is refused by name.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from qcrd_core.errors import ConfigError
from qcrd_core.student.model import wrap
from qcrd_core.student.tokenizer import first_line, pad_rows

_TOLERANCE, _TOLERANCE_QUANTIZED = 1e-3, 0.5
"""Nats, and shares of the largest score. Kernels that round differently are far below the first;
weights in 4 bits are multiplied in 16."""


@dataclass(frozen=True)
class Difference:
    """How far our numbers are from those of the model itself."""

    loss: float
    """Largest difference of a target's cross entropy, nats."""
    logit: float
    """Largest difference of a score of the next token, after a prompt and one written token, over
    the largest score."""


def check_model(model: Any, tokenizer: Any, source: str) -> None:
    """Refuse a student that cannot be trained, or that would be trained wrongly.

    Args:
        model: A Hugging Face model; its slow modules are replaced, as for training.
        tokenizer: Its tokenizer.
        source: The model, for errors.

    Raises:
        ConfigError: If the tokenizer has more tokens than the model, a T5 does not say how its
            decoder starts, or the model's own numbers are others.
    """
    size = model.get_input_embeddings().weight.shape[0]
    largest = max(tokenizer.get_vocab().values())
    if model.get_input_embeddings().weight.ndim == 2 and largest >= size:
        msg = (
            f"A tokenizer must fit its model; got {largest + 1:,} tokens and a model that knows "
            f"{size:,} ({source}). Use the tokenizer that the model was trained with."
        )
        raise ConfigError(msg)
    if model.config.is_encoder_decoder and model.config.decoder_start_token_id is None:
        msg = (
            "A model with a decoder must say how it starts; got no decoder_start_token_id in the "
            f"config.json of {source}. Add it; for a T5 it is the id of the padding token."
        )
        raise ConfigError(msg)
    kind = type(model).__name__
    try:
        found = compare_with_itself(model)
    except Exception as error:
        msg = (
            f"The student {source} ({kind}) does not run here: {first_line(error)} "
            f"({type(error).__name__}). Choose another student.model."
        )
        raise ConfigError(msg) from error
    is_quantized = getattr(model, "quantization_method", None) is not None
    tolerance = _TOLERANCE_QUANTIZED if is_quantized else _TOLERANCE
    if not max(found.loss, found.logit) <= tolerance:  # NaN is refused as well
        msg = (
            f"The student {source} ({kind}) gives other numbers through qcrd than by itself (loss "
            f"{found.loss:.2g}, logits {found.logit:.2g} apart), so it would be trained wrongly. "
            "Choose another student.model."
        )
        raise ConfigError(msg)


def check_context(model: Any, longest: int, source: str) -> None:
    """Refuse texts that are longer than a causal model can read.

    Args:
        model: A Hugging Face model. T5 has no limit, because it knows distances, not positions.
        longest: Most tokens of a prompt and its target together.
        source: The model, for errors.

    Raises:
        ConfigError: If they exceed its positions, or the window of its attention, in which padding
            between prompt and target would count.
    """
    if model.config.is_encoder_decoder:
        return
    for name in ("max_position_embeddings", "sliding_window"):
        limit = getattr(model.config, name, None)
        if limit is not None and longest > limit:
            msg = (
                f"A question and its target must fit into the {limit:,} tokens of {source} ({name} "
                f"in its config.json); got up to {longest:,}. Lower student.max_target_tokens, "
                "shorten the questions, or choose another student.model."
            )
            raise ConfigError(msg)


@torch.no_grad()
def compare_with_itself(model: Any) -> Difference:
    """Compute losses and next tokens in our way and in the model's.

    Args:
        model: A Hugging Face model; its slow modules are replaced.

    Returns:
        The differences, on two prompts and three targets of different lengths.
    """
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    prompts, targets, asked = _tokens(model)
    own = [_own_logits(model, prompts[q], target) for q, target in zip(asked, targets, strict=True)]
    losses = torch.stack(
        [
            functional.cross_entropy(logits.float(), torch.tensor(target, device=device))
            for logits, target in zip(own, targets, strict=True)
        ]
    )
    student = wrap(model)
    ids, mask = (tensor.to(device) for tensor in pad_rows(prompts, 0))
    target_ids, target_mask = (tensor.to(device) for tensor in pad_rows(targets, 0))
    context = student.read(ids, mask)
    nll = student.nll(context, torch.tensor(asked, device=device), target_ids, target_mask)
    first, state = student.start(ids, mask)
    second = student.step(state, target_ids[:2, 0])  # targets 0 and 1 answer prompts 0 and 1
    ours = torch.stack([first, second], dim=1)  # [2, 2, V]
    theirs = torch.stack([logits[:2] for logits in own[:2]])
    model.train(was_training)
    scale = max(1.0, _largest(theirs))
    return Difference(_largest(nll - losses), _largest(ours - theirs) / scale)


def _tokens(model: Any) -> tuple[list[list[int]], list[list[int]], list[int]]:
    """Prompts, targets, and which prompt each target answers; any tokens will do."""
    size = model.get_input_embeddings().weight.shape[0]

    def some(length: int, start: int) -> list[int]:
        return [(start + 7 * number) % (size - 4) + 4 for number in range(length)]

    return [some(5, 1), some(9, 2)], [some(4, 3), some(2, 5), some(6, 9)], [0, 1, 1]


def _own_logits(model: Any, prompt: list[int], target: list[int]) -> Tensor:
    """The model's own scores of a target's tokens, [T, V]."""
    device = next(model.parameters()).device
    if model.config.is_encoder_decoder:
        given, wanted = (torch.tensor([row], device=device) for row in (prompt, target))
        logits: Tensor = model(input_ids=given, labels=wanted).logits[0]
        return logits
    joined = torch.tensor([prompt + target], device=device)
    logits = model(input_ids=joined, use_cache=False).logits[0]
    return logits[len(prompt) - 1 : -1]


def _largest(difference: Tensor) -> float:
    return float(difference.abs().max())
