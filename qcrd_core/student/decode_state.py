"""What a student keeps of the texts that it is writing, so that texts can come and go.

All rows end in the same column of the cache, however long they are: one that joins later is padded
on the left. The mask hides the padding. A causal model counts positions along the mask, and T5's
relative distances are those between columns.

Shape letters: B rows, T columns (of a causal model the prompt's included), W prompt tokens.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache


@dataclass
class DecodeState:
    """B texts that are being written."""

    cache: DynamicCache
    """The decoder's own keys and values, T columns."""
    mask: Tensor
    """1 on the columns that belong to a row's text, [B, T]."""
    prompt: "EncodedPrompts | None" = None
    """T5: what the texts are about. Causal: None, the prompts are among the columns."""

    def keep(self, rows: Tensor) -> None:
        """Drop all other rows, and the first columns where no row uses them any more.

        Args:
            rows: Numbers of at least one row.
        """
        self.cache.batch_select_indices(rows)
        self.mask = self.mask[rows]
        unused = int(self.mask.any(dim=0).int().argmax())
        self.mask = self.mask[:, unused:]
        for layer in self.cache.layers:
            layer.keys, layer.values = layer.keys[:, :, unused:], layer.values[:, :, unused:]
        if self.prompt is not None:
            self.prompt.cache.batch_select_indices(rows)
            self.prompt.states, self.prompt.mask = self.prompt.states[rows], self.prompt.mask[rows]

    def join(self, other: "DecodeState") -> None:
        """Take in the rows of another state, below one's own.

        Args:
            other: Of the same student; useless afterwards.
        """
        _join_caches(self.cache, other.cache, left=True)
        self.mask = _join(self.mask[..., None], other.mask[..., None], left=True)[..., 0]
        mine, theirs = self.prompt, other.prompt
        if mine is not None and theirs is not None:
            _join_caches(mine.cache, theirs.cache, left=False)
            mine.states = _join(mine.states, theirs.states, left=False)
            mine.mask = _join(mine.mask[..., None], theirs.mask[..., None], left=False)[..., 0]


@dataclass
class EncodedPrompts:
    """What an encoder made of B prompts."""

    states: Tensor
    """Right-padded, [B, W, H]."""
    mask: Tensor
    """1 on real tokens, [B, W]."""
    cache: DynamicCache
    """Keys and values of the cross attention, W columns."""


def _join_caches(first: DynamicCache, second: DynamicCache, *, left: bool) -> None:
    for mine, theirs in zip(first.layers, second.layers, strict=True):
        mine.keys = _join(mine.keys, theirs.keys, left=left)
        mine.values = _join(mine.values, theirs.values, left=left)


def _join(first: Tensor, second: Tensor, *, left: bool) -> Tensor:
    """Pad [B, ..., T, X] to the same T with zeros and put the rows below each other."""
    width = max(first.shape[-2], second.shape[-2])
    padded = [
        pad(rows, (0, 0, missing, 0) if left else (0, 0, 0, missing))
        for rows in (first, second)
        for missing in [width - rows.shape[-2]]
    ]
    return torch.cat(padded)
