"""A fake trainer: each job writes the tables and folders of the real one, in the same order.

A student is its lineage, a text; what it answers is a hash of that text. So a round that starts
from another checkpoint, other scores or other labels makes another student, and other tables.
"""

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from data_schemas import Predictions, Rationales, Scores
from qcrd_core.discriminator.scores import write_scores
from qcrd_core.errors import TrainingError
from qcrd_core.evaluation import score_predictions
from qcrd_core.ids import content_hash, derive_seed
from qcrd_core.run.context import RunContext, RunJob
from qcrd_core.runtime.processes import Emit
from qcrd_core.store.store import part_name
from qcrd_core.training.jobs import Trained

_STEPS = 2


def check_student(job: RunJob, emit: Emit) -> dict[str, int]:
    del job, emit
    return {}


def make_tokenizers(job: Any, emit: Emit) -> dict[str, int]:
    del emit
    texts = pl.read_parquet(job.texts)["text"].to_list()
    _publish(job.context, job.context.paths.tokenizer, content_hash(*texts))
    return {}


def sample_negatives(job: Any, emit: Emit) -> dict[str, Any]:
    del emit
    context, folder = job.context, job.context.paths.negatives(job.round)
    student = _weights(context.store.fetch_folder(context.paths.student(job.checkpoint)))
    questions = context.read_questions("train").sort("question_id")
    stored = set(context.store.list(folder, suffix=".parquet"))
    for part in questions.iter_slices(2):
        name = part_name(part.select("question_id"))
        if name not in stored:
            rows = [_negative(job, student, question_id) for question_id in part["question_id"]]
            frame = pl.DataFrame(rows, schema=Rationales.create_empty().schema)
            context.store.write_table(f"{folder}/{name}", frame, Rationales)
    rows = context.store.read_table(folder, Rationales)
    context.write_metrics("negatives", job.round, {"num_rows": rows.height})
    return {}


def _negative(job: Any, student: str, question_id: str) -> dict[str, Any]:
    number = str(derive_seed(student, question_id) % 5)
    return {
        "question_id": question_id,
        "sample_idx": 0,
        "source": "student",
        "round": job.round,
        "model": f"checkpoints/round={job.checkpoint:03d}/student",
        "generation": content_hash(student),
        "text": f"So {number}.",
        "rationale": f"So {number}.",
        "answer_raw": number,
        "answer": number,
        "status": "ok",
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
        "run_id": job.run_id,
    }


def score_rationales(job: Any, emit: Emit) -> dict[str, Any]:
    del emit
    context, paths = job.context, job.context.paths
    rows = pl.read_parquet(job.candidates)
    before = paths.discriminator(job.round - 1)
    learned = _weights(context.store.fetch_folder(before)) if job.round else "new"
    learned = content_hash(learned, *rows["rationale"].to_list())
    _publish(context, paths.discriminator(job.round), learned)
    context.write_metrics("discriminator", job.round, {"loss": 0.5})
    texts = rows["rationale"].to_list()
    scores = [derive_seed(learned, text) % 1000 / 1000 for text in texts]
    scored = rows.with_columns(pl.Series("quality_score", scores, pl.Float64))
    write_scores(context, job.round, scored)
    return {"num_scored": rows.height}


def train_round(job: Any, emit: Emit) -> Trained:
    """Train in steps, each of which leaves a checkpoint; a start goes on from the newest one."""
    context, paths, store = job.context, job.context.paths, job.context.store
    engine, end = paths.engine(job.round), (job.round + 1) * _STEPS
    labels = pl.read_parquet(job.labels)["label"].to_list()
    scores = store.read_table(paths.scores(job.round), Scores)["quality_score"].to_list()
    lesson = content_hash(*labels, *map(str, scores))
    step, weights = _newest(context, job.round)
    if step != job.round * _STEPS and not job.round * _STEPS < step <= end:
        msg = f"round {job.round} starts at step {step}"
        raise TrainingError(msg)
    while step < end:
        step, weights = step + 1, content_hash(weights, lesson)
        emit({"advance": 1})
        name = f"step={step:08d}"
        _publish(context, f"{engine}/{name}", weights)
        for older in store.list(engine):
            if older != name:
                store.delete(f"{engine}/{older}")
    _publish(context, paths.student(job.round), weights)
    context.write_metrics("train", job.round, {"loss": 1.0 / step})
    if job.round > 0:
        store.delete(paths.engine(job.round - 1))
    return Trained(interrupted=False, global_step=step, loss=1.0 / step)


def _newest(context: RunContext, round_: int) -> tuple[int, str]:
    store = context.store
    for engine in (context.paths.engine(round_), context.paths.engine(round_ - 1)):
        names = [n for n in store.list(engine) if store.is_published(f"{engine}/{n}")]
        if names:
            step = int(names[-1].partition("=")[2])
            return step, _weights(store.fetch_folder(f"{engine}/{names[-1]}"))
    return 0, _weights(store.fetch_folder(context.paths.tokenizer))


def answer_split(job: Any, emit: Emit) -> dict[str, Any]:
    del emit
    context, paths = job.context, job.context.paths
    questions = context.read_questions(job.split)
    student = _weights(context.store.fetch_folder(paths.student(job.round)))
    ids = questions["question_id"].to_list()
    gold = questions["gold_answer"].to_list()
    right = [derive_seed(student, question_id) % 3 for question_id in ids]
    answers = {i: g if r else "wrong" for i, g, r in zip(ids, gold, right, strict=True)}
    frame = score_predictions(answers, answers, questions, round_=job.round)
    context.store.write_table(paths.predictions(job.split, job.round), frame, Predictions)
    accuracy = sum(map(bool, right)) / len(right)
    context.write_metrics(job.split, job.round, {"accuracy": accuracy})
    return {"accuracy": accuracy}


def _publish(context: RunContext, rel: str, content: str) -> None:
    target = context.store.local(rel)
    temporary = target.with_name(f"_tmp-{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    (temporary / "config.json").write_text("{}", encoding="utf-8")
    (temporary / "weights").write_text(content, encoding="utf-8")
    context.store.publish_folder(temporary, rel)


def _weights(folder: Path) -> str:
    return (folder / "weights").read_text(encoding="utf-8")
