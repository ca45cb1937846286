"""The quickstart's run as far as the shipped samples go, for benchmarks: no teacher is asked."""

from pathlib import Path
from typing import Any

import polars as pl

from data_schemas import Scores
from qcrd_core.config.known_methods import METHODS
from qcrd_core.config.run import load_config
from qcrd_core.run.context import RunContext
from qcrd_core.stages.plan import begin_run, plan_run
from qcrd_core.stages.rounds import make_tokenizers, score_rationales
from qcrd_core.stages.sampling import sample_teacher
from qcrd_core.stages.voting import vote_rationales
from qcrd_core.vote.candidates import training_labels

NUM_SHIPPED = 940
"""Training questions with shipped samples; the quickstart samples the rest live."""


def prepare_run(folder: Path, **settings: Any) -> RunContext:
    """Bring a `dss` run to the point where its first round can be trained.

    Args:
        folder: For the store and all else.
        **settings: Dotted settings, `__` for the dot.

    Returns:
        The run, with votes, tokenizer, and scores of every round.
    """
    changed = {
        **METHODS["dss"].settings,
        "run.store": folder / "store",
        "run.scratch": folder / "scratch",
        "data.max_train": NUM_SHIPPED,
        **{name.replace("__", "."): value for name, value in settings.items()},
    }
    overrides = tuple(f"{name}={value}" for name, value in changed.items())
    plan = plan_run(load_config(Path("configs/quickstart.yaml"), overrides))
    begin_run(plan)
    context = plan.context
    sample_teacher(context)
    vote_rationales(context)
    make_tokenizers(context)
    for round_ in range(context.config.training.num_rounds):
        score_rationales(context, round_)
    return context


def labels_with_rationale(context: RunContext) -> pl.DataFrame:
    """question_id, question, label of the questions that have a rationale to learn from."""
    scores = context.store.read_table(context.paths.scores(0), Scores)
    return training_labels(context).join(scores, on="question_id", how="semi")
