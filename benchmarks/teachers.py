"""Weights of two teachers, one much better: the table of docs/operations.md.

    python -m benchmarks.teachers MCC_KD_FOLDER

The good teacher is GPT-3.5 on SVAMP (MCC-KD, arXiv 2310.14747: train.jsonl, 700 questions, ten raw
rationales each, drawn here in random order). The weak one is simulated: it knows a share of the
questions, and is right in 85% of its samples of those. Of the others it guesses the operation on
the first two numbers, mostly the same one for a question, so that its errors agree.

The teachers are weighed on the gold answers of one half of the questions, and the votes are
measured on the other half. Ties go to the first answer. Means over six halves. Column p has the
share of right answers as the weight, in place of the odds that `voting.weights=precision` takes.
"""

import re
import sys
from pathlib import Path
from random import Random
from statistics import mean
from typing import Any

import polars as pl

from qcrd_core.data.answers import AnswerSpec
from qcrd_core.data.completions import read_completion
from qcrd_core.vote.majority import summarize_votes, vote
from qcrd_core.vote.weights import UNIT, Weights, teacher_numbers, vote_weights

_TEACHERS = ("good", "weak")
_SPEC = AnswerSpec(kind="number")
_USUAL = 0.6
"""How often a wrong answer of the weak teacher is its usual one of the question."""


def main() -> None:
    """Print a row per K of both teachers and share of questions that the weak one knows."""
    if len(sys.argv) != 2:
        sys.exit(f"Give the folder of MCC-KD; got {len(sys.argv) - 1} arguments.")
    rows = pl.read_ndjson(Path(sys.argv[1]) / "train.jsonl").to_dicts()
    answers = [
        [read_completion(text, _SPEC, None).get("answer") for text in row["rationales"]]
        for row in rows
    ]
    print(
        "| K good + weak | single sample right | good alone | equal | p | precision | agreement |\n"
        "|---|---|---|---|---|---|---|"
    )
    for num_good, num_weak in ((5, 5), (10, 10), (3, 7), (5, 10)):
        for known in (0.2, 0.4, 0.6):
            found = [
                _measured(rows, answers, (num_good, num_weak), known, seed) for seed in range(6)
            ]
            cells = [mean(each[place] for each in found) for place in range(len(found[0]))]
            shown = [f"{cell:.1%}" for cell in cells]
            print(f"| {num_good} + {num_weak} | {shown[0]}, {shown[1]} | {' | '.join(shown[2:])} |")


def _measured(
    rows: list[dict[str, Any]],
    answers: list[list[str | None]],
    num_samples: tuple[int, int],
    known: float,
    seed: int,
) -> list[float]:
    """Precision of both; accuracy of the good one alone and of all, on held-out questions."""
    random = Random(seed)
    gold = [str(_number(row["label"])) for row in rows]
    drawn = [random.sample(given, num_samples[0]) for given in answers]
    guessed = [
        _guesses(row["question"], right, random, known, num_samples[1])
        for row, right in zip(rows, gold, strict=True)
    ]
    table = pl.concat([_samples("good", drawn, 0), _samples("weak", guessed, num_samples[0])])
    names = [f"q{number:03d}" for number in range(len(rows))]
    held_out = set(random.sample(names, len(names) // 2))
    questions = pl.DataFrame({"question_id": names, "gold_answer": gold})
    is_held_out = pl.col("question_id").is_in(list(held_out))
    hidden = questions.with_columns(gold_answer=pl.when(~is_held_out).then("gold_answer"))
    numbers = teacher_numbers(table, hidden, _TEACHERS, "first")
    asked, test = table.filter(is_held_out), questions.filter(is_held_out)
    kinds: tuple[Weights, ...] = ("precision", "agreement")
    shares = (numbers["num_right"] / numbers["num_known"]).to_list()
    plain = {name: round(UNIT * share) for name, share in zip(_TEACHERS, shares, strict=True)}
    return [
        *shares,
        _accuracy(asked.filter(generation="good"), test, None),
        _accuracy(asked, test, None),
        _accuracy(asked, test, plain),
        *(_accuracy(asked, test, vote_weights(numbers, kind)) for kind in kinds),
    ]


def _accuracy(table: pl.DataFrame, test: pl.DataFrame, weights: dict[str, int] | None) -> float:
    found = summarize_votes(vote(table, test, "first", weights=weights))["majority_accuracy"]
    assert found is not None  # every question has a gold answer
    return found


def _guesses(question: str, right: str, random: Random, known: float, num: int) -> list[str | None]:
    a, b, *_ = [*map(_number, re.findall(r"\d+(?:\.\d+)?", question)), 3, 2]
    wrong = [str(_number(value)) for value in (a + b, abs(a - b), a * b, a, b)]
    wrong = [answer for answer in wrong if answer != right]
    usual, is_known = random.choice(wrong), random.random() < known
    return [
        right
        if random.random() < (0.85 if is_known else 0.15 * known)
        else usual
        if random.random() < _USUAL
        else random.choice(wrong)
        for _ in range(num)
    ]


def _number(value: str | float) -> float:
    number = round(float(value), 2)
    return int(number) if number.is_integer() else number


def _samples(teacher: str, answers: list[list[str | None]], first: int) -> pl.DataFrame:
    rows = [
        (f"q{number:03d}", first + sample, teacher, answer)
        for number, given in enumerate(answers)
        for sample, answer in enumerate(given)
    ]
    schema = {
        "question_id": pl.String,
        "sample_idx": pl.Int32,
        "generation": pl.String,
        "answer": pl.String,
    }
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(
        source=pl.lit("teacher"),
        status=pl.lit("ok"),
        cumulative_logprob=pl.lit(None, pl.Float64),
        num_tokens=pl.lit(None, pl.Int32),
    )


if __name__ == "__main__":
    main()
