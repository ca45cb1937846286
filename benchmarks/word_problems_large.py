"""Prepare word problems with 2,000 test questions for `configs/bench_word_problems_large.yaml`.

    python -m benchmarks.word_problems_large

The quickstart's training and validation questions, so that its teacher samples fit. Its 400 test
questions leave intervals of four points on a difference; 1,600 more that nobody trains on are put
to them. Beside them `perfect.jsonl`: the training questions with the rationales of a teacher that
makes no mistake. Writes data/word_problems_large.
"""

from pathlib import Path

import polars as pl

from qcrd_core.data.word_problems import NUM_TRAIN, generate, perfect_rationales

OUT = Path("data/word_problems_large")
NUM_MORE = 1600


def main() -> None:
    """Generate and write a file a split, and the perfect rationales."""
    questions = generate(0, num_train=NUM_TRAIN + NUM_MORE)
    # The stream's first training questions are the quickstart's; what follows is new.
    number = pl.col("question_id").str.extract(r"(\d+)$").cast(pl.Int32)
    is_more = (pl.col("split") == "train") & (number > NUM_TRAIN)
    split = pl.when(is_more).then(pl.lit("test")).otherwise(pl.col("split").cast(pl.String))
    parts = questions.with_columns(split.alias("split")).partition_by("split", as_dict=True)
    files = {str(name): rows.drop("split", "choices") for (name,), rows in parts.items()}
    files["perfect"] = files["train"].join(
        perfect_rationales(0), on="question_id", maintain_order="left"
    )
    OUT.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        rows.write_ndjson(OUT / f"{name}.jsonl")
        print(f"{OUT / name}.jsonl  {rows.height} questions")


if __name__ == "__main__":
    main()
