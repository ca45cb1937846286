"""The state of texts that are being decoded; rows can be replaced and removed.

All rows end in the same column of the cache, whatever their length. A row that began later has no
content in the columns before its own, and the mask hides them. A causal model counts positions
along the mask; T5 uses relative distances, which are those between columns.

Shape letters: B rows, T columns (including the prompt's, for a causal model), W prompt tokens.
"""

from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

_ROOM = 32
"""Spare columns per buffer, so it is reallocated only every 32 tokens."""


@dataclass
class DecodeState:
    """B texts that are being written."""

    cache: Cache
    """The decoder's own keys and values, T columns."""
    mask: Tensor
    """1 on the columns of a row's text, [B, T]."""
    prompt: "EncodedPrompts | None" = None
    """T5: the encoded prompts. Causal: None, because the prompts are among the columns."""

    def replace(self, rows: Tensor, other: "DecodeState") -> None:
        """Replace some rows by the texts of another state.

        Args:
            rows: Numbers of the rows, as many as the other state has.
            other: A state of the same student, with no longer prompts than this state's.
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
        """Keep only some rows.

        Args:
            rows: Numbers of at least one row.
        """
        self.cache.batch_select_indices(rows)
        self.mask = self.mask[rows]
        if self.prompt is not None:
            self.prompt.keep(rows)
        self._forget_unused()

    def _forget_unused(self) -> None:
        """Remove the leading columns that no row uses."""
        unused = int(self.mask.any(dim=0).int().argmax())
        self.mask = self.mask[:, unused:]
        for layer in self.cache.layers:
            layer.narrow(unused, self.mask.shape[1])


@dataclass
class EncodedPrompts:
    """B encoded prompts."""

    states: Tensor
    """Right-padded, [B, W, H]."""
    bias: Tensor
    """From `attention_bias`, [B, 1, 1, W]."""
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
    """Bias of attention scores: 0 on a row's own columns, the lowest number on all others.

    Hugging Face models use it directly; they would compute it from a mask again at every step.

    Args:
        mask: 1 on the columns of a row's text, [B, T].
        dtype: Type of the model's numbers.

    Returns:
        [B, 1, 1, T].
    """
    bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return bias.masked_fill_(mask == 0, torch.finfo(dtype).min)[:, None, None]


def with_newest(mask: Tensor) -> Tensor:
    """Append a column of ones for the new token of each row, [B, T + 1]."""
    return torch.cat([mask, mask.new_ones(mask.shape[0], 1)], dim=1)


def select_rows(cache: DynamicCache, rows: Tensor) -> DynamicCache:
    """Repeat rows in a new cache, because a model appends the target's keys to its cache."""
    selected = copy(cache)
    selected.layers = [copy(layer) for layer in cache.layers]
    selected.batch_select_indices(rows)
    return selected


def decode_cache() -> Cache:
    """An empty cache whose rows can be replaced."""
    return Cache(layer_class_to_replicate=_Layer)


class _Layer(DynamicLayer):  # type: ignore[misc]
    """Keys and values, [B, heads, T, D], as views of buffers with spare columns."""

    keys: Tensor
    values: Tensor

    def __init__(self) -> None:
        super().__init__()
        self._buffers: list[Tensor] = []
        self._end = 0
        """Column of the buffers at which the views end."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Called by the model with columns to append."""
        new, width = [key_states, value_states], key_states.shape[-2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            # The model's layout, heads within tokens, would be copied in every product.
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
        """Keep some rows; the base class defines the name."""
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
