"""Groups sequences of similar length, so that little padding is computed."""

import numpy as np
from torch import Tensor

_PASS_TOKENS = {"cpu": 96, "cuda": 8_192}
"""Fixed cost of a forward pass, in tokens: on a GPU, launching a small model's kernels takes as
long as computing this many tokens."""


def by_length(mask: Tensor, max_buckets: int) -> list[tuple[Tensor, int]]:
    """Split sequences into buckets, one forward pass each.

    Args:
        mask: 1 on real tokens of right-padded sequences, [S, T]; S > 0.
        max_buckets: Most buckets; fewer if another pass costs more than the padding it saves.

    Returns:
        Per bucket, the numbers of its sequences and its longest length, at least 1.
    """
    lengths = mask.sum(dim=1)
    order = lengths.argsort()
    ascending = lengths[order].cpu().numpy()
    sizes = best_sizes(ascending, max_buckets, _PASS_TOKENS.get(mask.device.type, 0))
    last = np.cumsum(sizes) - 1
    longest = [max(1, int(length)) for length in ascending[last]]
    return list(zip(order.split(sizes), longest, strict=True))


def best_sizes(ascending: np.ndarray, max_buckets: int, pass_tokens: int) -> list[int]:
    """Sizes of the cheapest buckets; the cost is the padded tokens plus `pass_tokens` per bucket.

    Uses dynamic programming over the distinct lengths, because sequences of equal length are always
    in one bucket.

    Args:
        ascending: Lengths in ascending order, [S].
        max_buckets: Most buckets, at least 1.
        pass_tokens: Fixed cost of a bucket.

    Returns:
        Sizes of consecutive buckets, which sum to S; the fewest buckets among equally cheap ones.
    """
    values, counts = np.unique(ascending, return_counts=True)
    ends = np.concatenate([[0], counts.cumsum()])
    # cost[i, j] is that of a bucket from the i-th to the j-th distinct length; j < i is impossible.
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
