"""A store with as many rationales as one likes, written by the code that writes every store.

Texts are arithmetic in a few wordings, about 110 characters, hardly two alike; of ten samples of a
question about seven are right. One request in a hundred failed, three samples in a hundred have no
answer.
"""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import yaml

from data_schemas import Questions, Rationales
from qcrd_core.config.run import validate_config
from qcrd_core.data.spec import load_spec
from qcrd_core.ids import fingerprint
from qcrd_core.run.context import RunContext
from qcrd_core.store.store import part_name
from qcrd_core.teacher.generation import FILE, generation_folder
from qcrd_core.teacher.plan import prompt_hashes

K = 10
DATASET = "word_problems"
RUN_ID = "scale-00000000"
IDENTITY = {"schema_version": Rationales.version, "model": {"name": "benchmarks.scale_store"}}
QUESTIONS_PER_PART = 64
"""What `teacher.questions_per_shard` is by default: 640 rows a part."""

_WORDINGS = (
    "There are {} of them in the box and {} more are put beside it, so there are {} in all.",
    "First there were {}. Then {} came. To know how many there are now, add: that makes {}.",
    "Start with {}, count on by {} and stop at {}. Nothing is taken away, so this is the answer.",
)


def open_scale(folder: Path) -> RunContext:
    """Open the run of a store that `make_store` made."""
    config = {
        "run": {"name": "scale", "store": str(folder), "scratch": str(folder / "_tmp-scratch")},
        "data": {"dataset": DATASET},
        "teacher": {"model": {"type": "hub", "name": "none"}, "num_samples": K},
        "discriminator": {"model": {"type": "scratch"}},
        "student": {"model": {"type": "scratch"}},
    }
    return RunContext.open(validate_config(config, "scale"), RUN_ID)


def make_store(folder: Path, num_rows: int, *, questions_per_part: int) -> None:
    """Write a store with one generation and one run that has its inputs.

    Args:
        folder: Where; the run's config.yaml is written last.
        num_rows: Rationales, K a question.
        questions_per_part: Size of the parts.
    """
    context = open_scale(folder)
    store, paths = context.store, context.paths
    target = generation_folder(DATASET, IDENTITY)
    questions = make_questions(num_rows // K)
    store.write_json(f"{target}/{FILE}", IDENTITY)
    store.write_table(paths.questions, questions, Questions)
    for part_questions in questions.iter_slices(questions_per_part):
        rows = _samples(part_questions)
        name = part_name(rows.select("question_id", "sample_idx", "prompt_hash"))
        store.write_table(f"{target}/{name}", rows, Rationales)
    store.write_json(paths.dataset, load_spec(DATASET).model_dump(mode="json"))
    environment = {"dataset": DATASET, "generation": fingerprint(IDENTITY), "first_prompt": None}
    store.write_json(paths.environment, environment)
    settings = yaml.safe_dump(context.config.model_dump(mode="json"), sort_keys=False)
    store.write_bytes(paths.config, settings.encode())


def make_questions(num_questions: int) -> pl.DataFrame:
    """Table `questions`; ids sort in no order of the numbers within, as hashes do."""
    frame = pl.select(number=pl.int_range(num_questions, dtype=pl.Int64)).with_columns(
        a=2 + pl.col("number") % 997, b=3 + pl.col("number") // 997
    )
    return frame.select(
        question_id=pl.format("q{}", pl.col("number").hash(3).cast(pl.String).str.zfill(20)),
        split=pl.lit("train"),
        question=pl.format("A box holds {} pens; {} are put in. How many are in it?", "a", "b"),
        choices=pl.lit(None, pl.List(pl.String)),
        gold_answer=(pl.col("a") + pl.col("b")).cast(pl.String),
        gold_target=pl.format("({} + {})", "a", "b"),
        messages=pl.lit(None, pl.String),
        template=pl.lit("get_more"),
    ).sort("question_id")


def _samples(questions: pl.DataFrame) -> pl.DataFrame:
    numbers = questions["gold_target"].str.extract_all(r"\d+")
    asked = questions.select("question_id").with_columns(
        prompt_hashes(questions),
        a=numbers.list.get(0).cast(pl.Int64),
        b=numbers.list.get(1).cast(pl.Int64),
    )
    index = pl.DataFrame({"sample_idx": pl.Series(range(K), dtype=pl.Int32)})
    rows = asked.join(index, how="cross").with_columns(
        seed=(pl.struct("question_id", "sample_idx").hash(1) // 4).cast(pl.Int64)
    )
    chance = pl.col("seed") // 8 % 100
    wrong = pl.when(chance < 70).then(0).otherwise(1 + pl.col("seed") // 1024 % 9)
    rows = rows.with_columns(
        answer=(pl.col("a") + pl.col("b") + wrong).cast(pl.String),
        status=pl.when(chance == 99)
        .then(pl.lit("failed"))
        .when(chance > 95)
        .then(pl.lit("no_answer"))
        .otherwise(pl.lit("ok")),
    )
    return _complete(rows)


def _complete(rows: pl.DataFrame) -> pl.DataFrame:
    worded = [pl.format(text, "a", "b", "answer") for text in _WORDINGS]
    which = pl.col("seed") % 3
    text = pl.when(which == 0).then(worded[0]).when(which == 1).then(worded[1]).otherwise(worded[2])
    is_ok, has_text = pl.col("status") == "ok", pl.col("status") != "failed"
    answer = pl.when(is_ok).then("answer")
    end = pl.when(is_ok).then(pl.format(" The answer is {}.", "answer")).otherwise(pl.lit(""))
    finished = pl.when(is_ok).then(pl.lit("stop")).otherwise(pl.lit("length"))
    values = {
        "source": pl.lit("teacher"),
        "round": pl.lit(None),
        "model": pl.lit("benchmarks.scale_store"),
        "model_revision": pl.lit(None),
        "generation": pl.lit(fingerprint(IDENTITY)),
        "text": pl.when(has_text).then(text + end),
        "reasoning": pl.lit(None, pl.String),
        "rationale": pl.when(has_text).then(text),
        "answer_raw": answer,
        "answer": answer,
        "error": pl.when(~has_text).then(pl.lit("HTTP 400: the prompt is too long")),
        "finish_reason": pl.when(has_text).then(finished),
        "num_prompt_tokens": pl.lit(214),
        "num_tokens": pl.when(has_text).then(20 + pl.col("seed") % 41),
        "cumulative_logprob": pl.when(has_text).then(-(pl.col("seed") % 10_000) / 700),
        "created_at": pl.lit(datetime(2026, 11, 24, tzinfo=UTC)),
        "run_id": pl.lit(RUN_ID),
    }
    return rows.with_columns(**values).select(Rationales.column_names())
