"""Buckets of similar length: nothing is lost, and no other split costs less."""

from itertools import combinations

import numpy as np
import pytest
import torch

from qcrd_core.student import buckets
from qcrd_core.student.buckets import best_sizes, by_length

RANDOM = np.random.default_rng(0)


def _cost(lengths, sizes, pass_tokens):
    parts = np.split(lengths, np.cumsum(sizes)[:-1])
    return sum(len(part) * part.max() + pass_tokens for part in parts)


def _least(lengths, max_buckets, pass_tokens):
    """By trying all splits."""
    every = (
        np.diff([0, *cuts, len(lengths)])
        for number in range(max_buckets)
        for cuts in combinations(range(1, len(lengths)), number)
    )
    return min(_cost(lengths, sizes, pass_tokens) for sizes in every)


@pytest.mark.parametrize("pass_tokens", [0, 3, 20])
@pytest.mark.parametrize("max_buckets", [1, 2, 3, 5])
@pytest.mark.parametrize("longest", [3, 30])
def test_best_sizes_cost_as_little_as_any_split(pass_tokens, max_buckets, longest):
    for _ in range(20):
        lengths = np.sort(RANDOM.integers(0, longest + 1, size=RANDOM.integers(1, 9)))
        sizes = best_sizes(lengths, max_buckets, pass_tokens)
        assert sum(sizes) == len(lengths)
        assert len(sizes) <= max_buckets
        assert min(sizes) > 0
        assert _cost(lengths, sizes, pass_tokens) == _least(lengths, max_buckets, pass_tokens)


def test_best_sizes_keep_labels_and_rationales_apart():
    assert best_sizes(np.array([4, 4, 4, 5, 90, 95, 96]), 2, 16) == [4, 3]


def test_best_sizes_make_no_pass_that_saves_less_than_it_costs():
    assert best_sizes(np.array([10, 10, 12]), 3, 16) == [3]


def test_by_length_has_each_sequence_once_with_all_its_tokens(monkeypatch):
    monkeypatch.setitem(buckets._PASS_TOKENS, "cpu", 0)  # there is little to put in them
    lengths = torch.tensor([3, 0, 7, 3, 1, 7])
    found = by_length((torch.arange(8) < lengths[:, None]).long(), 3)
    assert len(found) == 3
    assert sorted(torch.cat([rows for rows, _ in found]).tolist()) == list(range(6))
    for rows, longest in found:
        assert longest == max(1, int(lengths[rows].max()))
