"""Write the questions of `steps`: `python -m benchmarks.steps`."""

from pathlib import Path

from benchmarks.steps.stories import questions

OUT = Path("data/steps")


def main() -> None:
    """Write a file per split."""
    OUT.mkdir(parents=True, exist_ok=True)
    for (split,), rows in questions(0).partition_by("split", as_dict=True).items():
        rows.drop("split").write_ndjson(OUT / f"{split}.jsonl")
        print(f"{OUT / str(split)}.jsonl  {rows.height} questions")


if __name__ == "__main__":
    main()
