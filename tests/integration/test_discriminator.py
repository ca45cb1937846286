"""The discriminator's job on rationales that it can tell apart."""

import random

import polars as pl
import pytest

from data_schemas import Metrics, Scores
from qcrd_core.config.run import RunConfig
from qcrd_core.discriminator.jobs import ScoreRationales, score_rationales
from qcrd_core.discriminator.score import is_held_out, measure
from qcrd_core.evaluation import auc
from qcrd_core.run.context import RunContext
from qcrd_core.runtime.processes import run_job
from qcrd_core.student.tokenizer import make_tokenizer

TINY = {"type": "scratch", "hidden_size": 32, "num_layers": 1}


def _context(folder, **loss):
    content = {
        "run": {"name": "tiny", "store": str(folder / "store"), "scratch": str(folder / "scratch")},
        "data": {"dataset": "word_problems"},
        "teacher": {"model": {"type": "hub", "name": "none"}},
        "discriminator": {
            "model": TINY,
            "pretrain_steps": 60,
            "update_steps": 2,
            "learning_rate": 3e-3,
            **loss,
        },
        "student": {"model": TINY},
    }
    return RunContext.open(RunConfig.model_validate(content), "tiny-run")


def _candidates(context):
    rows = [
        {
            "question_id": f"q{i}",
            "question": f"What is {i} plus 2?",
            "source": "teacher",
            "sample_idx": k,
            "polarity": "positive" if k < 3 else "negative",
            "is_correct": k < 3,
            "rationale": f"{i} + 2 = {i + 2}." if k < 3 else f"We guess wildly {i}.",
        }
        for i in range(60)
        for k in range(4)
    ]
    frame = pl.DataFrame(rows)
    context.config.run.scratch.mkdir(parents=True)
    path = context.config.run.scratch / "candidates.parquet"
    frame.write_parquet(path)
    folder = context.config.run.scratch / "tokenizer"
    make_tokenizer([*frame["question"], *frame["rationale"]], 200).save_pretrained(folder)
    return {"candidates": path, "tokenizer": folder}


def test_discriminator_separates_wild_guesses_and_scores_every_rationale(tmp_path):
    context = _context(tmp_path)
    inputs = _candidates(context)
    for round_ in range(2):
        job = ScoreRationales(context.config, context.paths.run_id, round_, **inputs)
        result = run_job(score_rationales, job, log=tmp_path / "score.log").value
        assert result["num_scored"] == 240
        assert result["num_cut"] == 0
        assert result["auc_polarity"] > 0.95
    scores = context.store.read_table(context.paths.scores(1), Scores)
    for polarity in ("positive", "negative"):
        weights = scores.filter(pl.col("polarity") == polarity)["rationale_weight"]
        assert weights.mean() == pytest.approx(1.0)
    metrics = context.store.read_table(context.paths.metrics_part("discriminator", 1), Metrics)
    rate = metrics.filter(pl.col("name") == "learning_rate")["value"][0]
    assert rate == pytest.approx(0.9 * 3e-3)


def test_paper_s_weights_are_the_scores(tmp_path):
    context = _context(tmp_path, fit="paper")
    job = ScoreRationales(context.config, context.paths.run_id, 0, **_candidates(context))
    run_job(score_rationales, job, log=tmp_path / "score.log")
    scores = context.store.read_table(context.paths.scores(0), Scores)
    negative = scores.filter(pl.col("polarity") == "negative")
    assert (negative["rationale_weight"] + negative["quality_score"]).to_list() == pytest.approx(
        [1.0] * 60
    )


@pytest.mark.parametrize(("fit", "is_leaking"), [("paper", True), ("cross_fit", False)])
def test_only_cross_fitted_scores_know_nothing_of_polarities_without_a_pattern(
    tmp_path, fit, is_leaking
):
    context = _context(tmp_path, fit=fit, pretrain_steps=300)
    inputs = _candidates(context)
    coin = random.Random(0)
    rows = pl.read_parquet(inputs["candidates"])
    polarity = [coin.choice(["positive", "negative"]) for _ in range(rows.height)]
    words = [" ".join(coin.choices(["We", "guess", "wildly", "+", "="], k=6)) for _ in polarity]
    rows.with_columns(
        polarity=pl.Series(polarity),
        is_correct=pl.lit(None, pl.Boolean),
        rationale=pl.Series(words),
    ).write_parquet(inputs["candidates"])

    job = ScoreRationales(context.config, context.paths.run_id, 0, **inputs)
    run_job(score_rationales, job, log=tmp_path / "score.log")

    scores = context.store.read_table(context.paths.scores(0), Scores)
    separation = auc(
        scores["quality_score"].to_list(), (scores["polarity"] == "positive").to_list()
    )
    assert (separation > 0.8) is is_leaking, separation


@pytest.mark.parametrize("loss", ["ratio", "infonce"])
def test_discriminator_learns_by_the_losses_within_questions(tmp_path, loss):
    context = _context(tmp_path, loss=loss)
    job = ScoreRationales(context.config, context.paths.run_id, 0, **_candidates(context))
    result = run_job(score_rationales, job, log=tmp_path / "score.log").value
    assert result["auc_polarity"] > 0.95


def test_held_out_questions_are_a_tenth_and_stay_so():
    held = [i for i in range(5000) if is_held_out(f"q{i}", seed=1)]
    assert 400 < len(held) < 600
    assert held == [i for i in range(5000) if is_held_out(f"q{i}", seed=1)]


def test_measure_of_flat_scores_says_that_nothing_is_separated():
    flat = pl.DataFrame(
        {
            "quality_score": [0.5] * 4,
            "polarity": ["positive", "negative"] * 2,
            "is_correct": [True, False, True, None],
        }
    )
    assert measure(flat)["auc_polarity"] == 0.5
