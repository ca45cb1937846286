"""A tiny student's rounds without a flow: its store, its job, what came of it.

As a program it is the first host of a training: `python -m tests.support.training CONFIG ROUND ...`
prints a line a step, and at the end the error, if there is one.
"""

import sys
from pathlib import Path
from typing import Any

import polars as pl
from safetensors.torch import load_file
from torch import Tensor

from data_schemas import Metrics, Scores
from qcrd_core.config.run import RunConfig, load_config
from qcrd_core.data.spec import load_spec
from qcrd_core.errors import QcrdError
from qcrd_core.run.context import RunContext
from qcrd_core.runtime.processes import Emit, run_job
from qcrd_core.student.tokenizer import make_tokenizer
from qcrd_core.training.jobs import Trained, TrainRound, train_round

TINY = {"type": "scratch", "hidden_size": 32, "num_layers": 1}
NO_DROPOUT = {**TINY, "dropout": 0.0}
SAMPLED = {"pos_select": "sample", "neg_select": "sample"}


def settings(folder: Path, **sections: Any) -> dict[str, Any]:
    """Settings of two rounds of four steps, four questions each."""
    content: dict[str, Any] = {
        "run": {"name": "tiny", "store": str(folder / "store"), "scratch": str(folder / "scratch")},
        "data": {"dataset": "word_problems"},
        "teacher": {"model": {"type": "hub", "name": "none"}},
        "discriminator": {"model": TINY},
        "student": {"model": TINY},
        "training": {
            "num_rounds": 2,
            "steps_per_round": 4,
            "learning_rate": 1e-3,
            "global_batch_size": 4,
            "micro_batch_size": 4,
        },
    }
    for name, section in sections.items():
        content[name] = {**content.get(name, {}), **section}
    return content


def open_tiny(content: dict[str, Any]) -> RunContext:
    """Open the run of such settings."""
    return RunContext.open(RunConfig.model_validate(content), "tiny-run")


def prepare(context: RunContext) -> Path:
    """Write what a round reads; the folder of its tokenizer."""
    labels = [[f"q{i}", f"What is {i} plus 2?", str(i + 2)] for i in range(10)]
    rows = [
        {
            "round": round_,
            "question_id": f"q{i}",
            "source": "teacher",
            "sample_idx": k,
            "polarity": "positive" if k < 2 else "negative",
            "rationale": f"{i} + {k + 1} = {i + k + 1}.",
            "quality_score": 0.8,
            "rationale_weight": 0.8 if k < 2 else 0.2,
        }
        for round_ in range(2)
        for i in range(10)
        for k in range(3)
    ]
    frame, store, paths = pl.DataFrame(rows), context.store, context.paths
    for round_ in range(2):
        store.write_table(paths.scores(round_), frame.filter(pl.col("round") == round_), Scores)
    texts = [text for row in labels for text in row[1:]] + frame["rationale"].to_list()
    published = store.local(paths.tokenizer)
    temporary = published.with_name("_tmp-tokenizer")
    make_tokenizer(texts, 200).save_pretrained(temporary)
    store.publish_folder(temporary, paths.tokenizer)
    store.write_json(paths.dataset, load_spec("word_problems").model_dump(mode="json"))
    schema = ["question_id", "question", "label"]
    path = _labels(context)
    path.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(labels, schema=schema, orient="row").write_parquet(path)
    return published


def train(context: RunContext, round_: int, on_event: Emit | None = None) -> Trained:
    """Train a round, in a job, as the flow does."""
    log = context.config.run.scratch / "train.log"
    return run_job(train_round, round_job(context, round_), log=log, on_event=on_event).value


def round_job(context: RunContext, round_: int) -> TrainRound:
    """What the job of a round is given."""
    return TrainRound(context.config, context.paths.run_id, round_, _labels(context))


def losses(context: RunContext, round_: int) -> list[float]:
    """Loss of each step of a round."""
    metrics = context.store.read_table(context.paths.metrics_part("train", round_), Metrics)
    return metrics.filter(pl.col("name") == "loss").sort("global_step")["value"].to_list()


def weights(context: RunContext, round_: int) -> dict[str, Tensor]:
    """Weights of the student that a round published."""
    return load_file(context.store.local(context.paths.student(round_)) / "model.safetensors")


def largest_difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Of any weight; they must have the same names."""
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


def _labels(context: RunContext) -> Path:
    return context.config.run.scratch / "labels.parquet"


def _show(value: object) -> None:
    sys.stdout.write(f"{value}\n")
    sys.stdout.flush()


def _main(config: str, *rounds: str) -> int:
    context = RunContext.open(load_config(Path(config)), "tiny-run")
    try:
        for round_ in rounds:
            train(context, int(round_), _show)
    except QcrdError as error:
        _show(f"{type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
