"""What a student keeps of the texts that it is writing, so that texts can come and go.

All rows end in the same column of the cache, however long they are: one that begins later has
nothing in the columns before its own. The mask hides these. A causal model counts positions along
the mask, and T5's relative distances are those between columns.

Shape letters: B rows, T columns (of a causal model the prompt's included), W prompt tokens.
"""

from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

_ROOM = 32
"""Columns to come that a buffer has room for: so seldom is it copied."""


@dataclass
class DecodeState:
    """B texts that are being written."""

    cache: Cache
    """The decoder's own keys and values, T columns."""
    mask: Tensor
    """1 on the columns that belong to a row's text, [B, T]."""
    prompt: "EncodedPrompts | None" = None
    """T5: what the texts are about. Causal: None, the prompts are among the columns."""

    def replace(self, rows: Tensor, other: "DecodeState") -> None:
        """Let the texts of another state take the place of some.

        Args:
            rows: Numbers of the rows, as many as the other state has.
            other: Of the same student. None of its prompts is longer than any of this state's.
        """
        width = other.mask.shape[1]
        self.mask[rows] = 0
        self.mask[rows, -width:] = other.mask
        for mine, theirs in zip(self.cache.layers, other.cache.layers, strict=True):
            mine.replace(rows, theirs, first=self.mask.shape[1] - width)
        if self.prompt is not None and other.prompt is not None:
            self.prompt.replace(rows, other.prompt)
        self._forget_unused()

    def keep(self, rows: Tensor) -> None:
        """Drop all other rows.

        Args:
            rows: Numbers of at least one row.
        """
        self.cache.batch_select_indices(rows)
        self.mask = self.mask[rows]
        if self.prompt is not None:
            self.prompt.keep(rows)
        self._forget_unused()

    def _forget_unused(self) -> None:
        """Narrow to the columns that any row uses."""
        unused = int(self.mask.any(dim=0).int().argmax())
        self.mask = self.mask[:, unused:]
        for layer in self.cache.layers:
            layer.narrow(unused, self.mask.shape[1])


@dataclass
class EncodedPrompts:
    """What an encoder made of B prompts."""

    states: Tensor
    """Right-padded, [B, W, H]."""
    bias: Tensor
    """Of `attention_bias`, [B, 1, 1, W]."""
    cache: Cache
    """Keys and values of the cross attention, W columns."""

    def replace(self, rows: Tensor, other: "EncodedPrompts") -> None:
        """See `DecodeState.replace`."""
        width = other.states.shape[1]
        self.bias[rows] = torch.finfo(self.bias.dtype).min
        self.bias[rows, ..., :width] = other.bias
        self.states[rows, :width] = other.states
        for mine, theirs in zip(self.cache.layers, other.cache.layers, strict=True):
            mine.replace(rows, theirs, first=0)
        self._forget_unused()

    def keep(self, rows: Tensor) -> None:
        """See `DecodeState.keep`."""
        self.cache.batch_select_indices(rows)
        self.states, self.bias = self.states[rows], self.bias[rows]
        self._forget_unused()

    def _forget_unused(self) -> None:
        width = int((self.bias == 0).sum(dim=-1).max())
        self.states, self.bias = self.states[:, :width], self.bias[..., :width]
        for layer in self.cache.layers:
            layer.narrow(0, width)


def attention_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to the scores of columns: 0 on a row's own, else the least number.

    Hugging Face models take it as it is; of a mask they would make it anew at every step.

    Args:
        mask: 1 on the columns that belong to a row, [B, T].
        dtype: Of the model.

    Returns:
        [B, 1, 1, T].
    """
    bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return bias.masked_fill_(mask == 0, torch.finfo(dtype).min)[:, None, None]


def with_newest(mask: Tensor) -> Tensor:
    """Add a column of ones, for the token that each row gets, [B, T + 1]."""
    return torch.cat([mask, mask.new_ones(mask.shape[0], 1)], dim=1)


def select_rows(cache: DynamicCache, rows: Tensor) -> DynamicCache:
    """Repeat rows in a cache of their own; a model appends the target's keys to what it gets."""
    selected = copy(cache)
    selected.layers = [copy(layer) for layer in cache.layers]
    selected.batch_select_indices(rows)
    return selected


def decode_cache() -> Cache:
    """An empty cache whose rows can be replaced."""
    return Cache(layer_class_to_replicate=_Layer)


class _Layer(DynamicLayer):  # type: ignore[misc]
    """Keys and values, [B, heads, T, D], as windows of buffers with room for columns to come."""

    keys: Tensor
    values: Tensor

    def __init__(self) -> None:
        super().__init__()
        self._buffers: list[Tensor] = []
        self._end = 0
        """Column of the buffers at which the windows end."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Called by the model with columns to append."""
        new, width = [key_states, value_states], key_states.shape[-2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            # A model's own order, heads within tokens, would be copied at every product.
            self._buffers, self._end = [columns.contiguous() for columns in new], width
            self._show(width)
            return self.keys, self.values
        count = self.get_seq_length()
        if self._end + width > self._buffers[0].shape[-2]:
            self._buffers = [_with_room(window, width) for window in (self.keys, self.values)]
            self._end = count
        for buffer, columns in zip(self._buffers, new, strict=True):
            buffer[:, :, self._end : self._end + width] = columns
        self._end += width
        self._show(count + width)
        return self.keys, self.values

    def replace(self, rows: Tensor, other: "_Layer", first: int) -> None:
        """Write another layer's columns into some rows, from column `first` on."""
        last = first + other.get_seq_length()
        self.keys[rows, :, first:last] = other.keys
        self.values[rows, :, first:last] = other.values

    def narrow(self, first: int, count: int) -> None:
        """Keep `count` columns from `first` on."""
        self._end += first + count - self.get_seq_length()
        self._show(count)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows; the name is the base class's."""
        self._buffers = [window[indices] for window in (self.keys, self.values)]
        self.keys, self.values = self._buffers
        self._end = self.get_seq_length()

    def _show(self, count: int) -> None:
        start = self._end - count
        self.keys, self.values = (buffer[:, :, start : self._end] for buffer in self._buffers)


def _with_room(window: Tensor, width: int) -> Tensor:
    *outer, count, size = window.shape
    buffer = window.new_empty(*outer, count + width + _ROOM, size)
    buffer[:, :, :count] = window
    return buffer
