"""Sequences of similar length together, so that little padding is computed."""

import numpy as np
from torch import Tensor

_PASS_TOKENS = {"cpu": 96, "cuda": 8_192}
"""What a forward pass costs beside its tokens, in tokens: on a GPU, launching a small model's
kernels takes as long as the work on so many."""


def by_length(mask: Tensor, max_buckets: int) -> list[tuple[Tensor, int]]:
    """Split sequences into buckets, one forward pass each.

    Args:
        mask: 1 on real tokens of right-padded sequences, [S, T]; S > 0.
        max_buckets: Most buckets; fewer where another pass costs more than the padding it saves.

    Returns:
        Of each bucket the numbers of its sequences and its longest length, at least 1.
    """
    lengths = mask.sum(dim=1)
    order = lengths.argsort()
    ascending = lengths[order].cpu().numpy()
    sizes = best_sizes(ascending, max_buckets, _PASS_TOKENS.get(mask.device.type, 0))
    last = np.cumsum(sizes) - 1
    longest = [max(1, int(length)) for length in ascending[last]]
    return list(zip(order.split(sizes), longest, strict=True))


def best_sizes(ascending: np.ndarray, max_buckets: int, pass_tokens: int) -> list[int]:
    """Sizes of the buckets that cost least: padded tokens, and `pass_tokens` for each bucket.

    Dynamic programming over the distinct lengths, for a bucket ends with the last of a length.

    Args:
        ascending: Lengths in ascending order, [S].
        max_buckets: Most buckets, at least 1.
        pass_tokens: What a bucket costs beside its tokens.

    Returns:
        Sizes of consecutive buckets, which sum to S; the fewest of those that cost least.
    """
    values, counts = np.unique(ascending, return_counts=True)
    ends = np.concatenate([[0], counts.cumsum()])
    # A bucket from the i-th distinct length to before the j-th, [i, j]; none of no sequences.
    cost = (ends[None, 1:] - ends[:-1, None]) * values[None, :] + float(pass_tokens)
    cost[np.tril_indices(len(values), -1)] = np.inf
    least, starts = cost[0], [np.zeros(len(values), dtype=int)]
    totals = [least[-1]]
    for _ in range(1, min(max_buckets, len(values))):
        before = np.concatenate([[np.inf], least[:-1]])
        both = before[:, None] + cost
        starts.append(both.argmin(axis=0))
        least = both.min(axis=0)
        totals.append(least[-1])
    end, bounds = len(values), [len(values)]
    for chosen in reversed(starts[: int(np.argmin(totals)) + 1]):
        end = int(chosen[end - 1])
        bounds.append(end)
    sizes: list[int] = np.diff(ends[bounds[::-1]]).tolist()
    return sizes
