"""Prepare SVAMP with the rationales of GPT-3.5 for `configs/bench_svamp_gpt35.yaml`.

    python -m benchmarks.svamp_gpt35 MCC_KD_FOLDER DSS_FOLDER

The first folder holds train, valid and test.jsonl of MCC-KD (arXiv 2310.14747): 700 / 150 / 150
questions, ten raw rationales for each of the first. The second holds train and test.jsonl of
Distilling Step-by-Step (arXiv 2305.02301; columns question, label): the same questions, labelled
with their equations. Writes data/svamp_gpt35 with

- the rationales in random order: MCC-KD's file lists the right ones first (93% of the first are
  right, 72% of all), which would favour every method that takes the first;
- the equation, which the student learns, as it does in QCRD and DSS.
"""

import sys
from pathlib import Path
from random import Random

import polars as pl

OUT = Path("data/svamp_gpt35")


def main() -> None:
    """Join the two publications by the letters and digits of their questions."""
    if len(sys.argv) != 3:
        sys.exit(f"Give the folders of MCC-KD and of DSS; got {len(sys.argv) - 1} arguments.")
    rationales, equations = (Path(argument) for argument in sys.argv[1:])
    key = pl.col("question").str.to_lowercase().str.replace_all("[^a-z0-9]", "").alias("key")
    whole = pl.col("label").str.replace_all(r"(\d)\.0\b", "$1").alias("equation")
    known = pl.concat(
        pl.read_ndjson(equations / f"{split}.jsonl").select(key, whole)
        for split in ("train", "test")
    )
    OUT.mkdir(parents=True, exist_ok=True)
    for split in ("train", "valid", "test"):
        rows = pl.read_ndjson(rationales / f"{split}.jsonl").with_columns(key)
        joined = rows.join(known, on="key", how="left", maintain_order="left").drop("key")
        if joined.height != len(rows) or joined["equation"].null_count():
            sys.exit(f"Each question of {split} must have one equation in {equations}.")
        if split == "train":
            joined = joined.with_columns(
                pl.Series("rationales", _shuffled(joined["rationales"].to_list()))
            )
        joined.write_ndjson(OUT / f"{split}.jsonl")
        print(f"{OUT / split}.jsonl  {len(rows)} questions")


def _shuffled(rationales: list[list[str]]) -> list[list[str]]:
    random = Random(0)
    return [random.sample(texts, len(texts)) for texts in rationales]


if __name__ == "__main__":
    main()
