"""Sample numbers in a run with several teachers.

A generation numbers its samples from 0, whoever reads it. So samples that a run with one teacher
drew serve a run with several as they are, and keep their seeds. A run reads its teachers one after
the other and counts on: with K = 5 and K = 3, samples 0 to 4 are the first teacher's and 5 to 7
the second's. Tables of the run (`polarity`, `scores`, `condensed`) hold the run's numbers; those of
the data set (`rationales`, `curation`) the generation's. With one teacher they are the same.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate

import polars as pl


def first_numbers(generations: Sequence[str], num_samples: Sequence[int]) -> dict[str, int]:
    """The number of each generation's first sample in a run.

    Args:
        generations: Fingerprints in the order of the teachers.
        num_samples: K of each.

    Returns:
        The numbers by fingerprint; that of the first teacher is 0.
    """
    return dict(zip(generations, accumulate(num_samples, initial=0), strict=False))


def number_in_run(first: Mapping[str, int]) -> pl.Expr:
    """Column `sample_idx` as the run counts, from that of the generation.

    Args:
        first: From `first_numbers`. Rows of other generations, as of students, stay as they are.

    Returns:
        An expression over `generation` and `sample_idx`.
    """
    start = pl.col("generation").replace_strict(first, default=0, return_dtype=pl.Int32)
    return (pl.col("sample_idx") + start).alias("sample_idx")
