"""Decoding with a student: greedy answers and sampled rationales.

Texts have very different lengths. So that few steps are spent on finished texts, they are replaced
by the next prompts as soon as enough of them have finished.

Each prompt has its own random numbers, one per token, by its place in the list. So its sample
depends on the seed and not on the other texts in the batch, except for rounding.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qcrd_core.ids import derive_seed
from qcrd_core.runtime.processes import Emit
from qcrd_core.student.decoding_state import DecodeState
from qcrd_core.student.model import wrap
from qcrd_core.student.tokenizer import encode_texts, pad_rows

_ENDED_SHARE = 0.15
"""Share of finished rows at which they are replaced; reading new prompts takes an extra pass."""


@dataclass(frozen=True)
class Written:
    """A student's text for one prompt."""

    text: str
    num_tokens: int
    """Tokens before the end token."""
    is_finished: bool
    """Whether the end token came before the length limit."""
    logprob: float | None = field(default=None, compare=False)
    """Log-probability of the whole text, its end token included, nats, when it is greedy; None when
    it is sampled. It differs by rounding with the texts beside it."""


@dataclass(frozen=True)
class DecodeOptions:
    """Options of decoding."""

    max_new_tokens: int
    batch_size: int
    """Texts per batch."""
    sampling_temperature: float | None = None
    """None is greedy; otherwise tokens are drawn from the full softmax(logits / temperature)."""
    seed: int = 0
    are_alone: bool = False
    """Whether each prompt draws as if it were the only one, whatever its place in the list."""


@torch.no_grad()
def write(
    model: Any, tokenizer: Any, prompts: Sequence[str], options: DecodeOptions, emit: Emit
) -> list[Written]:
    """Let a student write one text per prompt.

    Args:
        model: T5-type or causal Hugging Face model.
        tokenizer: Its tokenizer.
        prompts: Prompts with their prefix.
        options: Length, batch, temperature, seed.
        emit: Receives `{"advance": n}` when n more texts are finished.

    Returns:
        One text per prompt, in the prompts' order.
    """
    model.eval()
    if model.device.type == "cpu":
        # With one query per row, it is 1.4 times as fast as torch's fused kernel.
        model.get_decoder().set_attn_implementation("eager")
    ids = encode_texts(tokenizer, prompts, end=model.config.is_encoder_decoder)
    # Long prompts first, so that their buffers have room for all that follow.
    queue = deque(sorted(range(len(ids)), key=lambda text: (-len(ids[text]), text)))
    texts = _Texts(model, tokenizer, ids, options)
    if queue:
        texts.start(_take(queue, options.batch_size))
    while len(texts.rows):
        ended = texts.ended_rows()
        if len(ended) and len(ended) >= _ENDED_SHARE * len(texts.rows):
            emit({"advance": len(ended)})
            new = _take(queue, len(ended))
            if new:
                texts.replace(ended[: len(new)], new)
            texts.drop(ended[len(new) :])
        else:
            texts.step()
    return [
        _read(tokens[:length].tolist(), tokenizer, logprob)
        for tokens, length, logprob in zip(
            texts.tokens, texts.lengths, texts.logprobs(), strict=True
        )
    ]


def _take(queue: deque[int], count: int) -> list[int]:
    return [queue.popleft() for _ in range(min(count, len(queue)))]


class _Texts:
    """All texts; those that are being written have one row each."""

    def __init__(
        self, model: Any, tokenizer: Any, ids: list[list[int]], options: DecodeOptions
    ) -> None:
        self.student, self.device = wrap(model), model.device
        self.pad_id, self.end_id = tokenizer.pad_token_id, tokenizer.eos_token_id
        self.ids, self.options = ids, options
        shape = (len(ids), options.max_new_tokens)
        self.tokens = np.zeros(shape, dtype=np.int64)
        self.lengths = np.zeros(len(ids), dtype=np.int64)
        self.is_ended = np.zeros(len(ids), dtype=bool)
        self.rows = np.empty(0, dtype=np.int64)
        self.state: DecodeState
        self.newest: Tensor
        source = np.random.default_rng(derive_seed(options.seed, "decode"))
        # In (0, 1], so that `_sample` never returns a token of probability 0.
        draws = 1 - source.random((1, shape[1]) if options.are_alone else shape, dtype=np.float32)
        self.draws = np.broadcast_to(draws, shape)
        self._logprobs = np.zeros(len(ids))

    def start(self, texts: list[int]) -> None:
        """Start the first texts, and write their first tokens."""
        logits, self.state = self._read(texts)
        self.rows = np.array(texts)
        self.newest = self._append(logits, self.rows)

    def replace(self, rows: np.ndarray, texts: list[int]) -> None:
        """Start texts in the rows of finished ones, and write their first tokens."""
        logits, state = self._read(texts)
        index = torch.from_numpy(rows).to(self.device)
        self.state.replace(index, state)
        self.rows[rows] = texts
        self.newest[index] = self._append(logits, self.rows[rows])

    def step(self) -> None:
        """Write the next token of each text; finished texts do not change."""
        self.newest = self._append(self.student.step(self.state, self.newest), self.rows)

    def ended_rows(self) -> np.ndarray:
        """Numbers of the rows with finished texts."""
        return self.is_ended[self.rows].nonzero()[0]

    def drop(self, rows: np.ndarray) -> None:
        """Remove some rows."""
        if not len(rows):
            return
        kept = np.delete(np.arange(len(self.rows)), rows)
        self.rows = self.rows[kept]
        if len(kept):
            index = torch.from_numpy(kept).to(self.device)
            self.newest = self.newest[index]
            self.state.keep(index)

    def _read(self, texts: list[int]) -> tuple[Tensor, DecodeState]:
        prompts = pad_rows([self.ids[text] for text in texts], self.pad_id)
        return self.student.start(*(tensor.to(self.device) for tensor in prompts))

    def _append(self, logits: Tensor, texts: np.ndarray) -> Tensor:
        """Choose the next token of each text, [B] from [B, V]; store those of unfinished texts."""
        chosen, logprobs = self._choose(logits, texts)
        unended = ~self.is_ended[texts]
        texts, tokens = texts[unended], chosen.cpu().numpy()[unended]
        if logprobs is not None:
            self._logprobs[texts] += logprobs.cpu().numpy()[unended]
        self.tokens[texts, self.lengths[texts]] = tokens
        self.lengths[texts] += 1
        is_long = self.lengths[texts] == self.options.max_new_tokens
        self.is_ended[texts] = is_long | (tokens == self.end_id)
        return chosen

    def logprobs(self) -> list[float | None]:
        """Log-probability of each text, nats; None if texts are sampled."""
        if self.options.sampling_temperature is None:
            return list(self._logprobs.tolist())
        return [None] * len(self._logprobs)

    def _choose(self, logits: Tensor, texts: np.ndarray) -> tuple[Tensor, Tensor | None]:
        """Next tokens, [B] from [B, V], and their log-probabilities, [B], if they are greedy."""
        temperature = self.options.sampling_temperature
        if temperature is None:
            # The greedy token's logit minus the normaliser: no table of B x V is written.
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            highest, chosen = logits.max(dim=-1)
            return chosen, highest - logits.logsumexp(dim=-1)
        place = self.lengths[texts].clip(max=self.options.max_new_tokens - 1)
        draws = torch.from_numpy(self.draws[texts, place])
        return _sample(logits / temperature, draws.to(self.device)), None


def _sample(logits: Tensor, draws: Tensor) -> Tensor:
    """Tokens at which the cumulative probability reaches the draws, [B], from [B, V] and [B]."""
    cumulative = logits.float().softmax(dim=-1).cumsum(dim=-1)
    return torch.searchsorted(cumulative, draws[:, None] * cumulative[:, -1:])[:, 0]


def _read(tokens: list[int], tokenizer: Any, logprob: float | None) -> Written:
    is_finished = tokens[-1] == tokenizer.eos_token_id
    if is_finished:
        tokens = tokens[:-1]
    text = tokenizer.decode(tokens, skip_special_tokens=True).strip()
    return Written(text, len(tokens), is_finished, logprob)
