"""Complete synthetic runs, whose students answer as a test says."""

from collections.abc import Callable

import polars as pl
import yaml

from data_schemas import Predictions, Questions
from qcrd_core.registry.registry import Version, register
from qcrd_core.run.paths import RunPaths
from qcrd_core.run.records import Result
from qcrd_core.store.store import Store
from tests.support.synthetic_run import CONFIG, RUN_ID, Shape, write_synthetic_run

SHAPE = Shape(num_train=6, num_test=60, num_rounds=1, steps_per_round=1)


def complete_run(
    store: Store,
    run_id: str,
    is_right: Callable[[int], bool],
    *,
    change: Callable[[pl.DataFrame], pl.DataFrame] = lambda questions: questions,
    **sections: object,
) -> str:
    """Write a run whose student is right on the test questions that `is_right` names by number.

    Args:
        store: Where to.
        run_id: Its name.
        is_right: By the position of a test question, from 0.
        change: What to do to table `questions` first.
        sections: Sections of the configuration.

    Returns:
        The run_id.
    """
    write_synthetic_run(store, SHAPE)
    old, new = RunPaths(RUN_ID), RunPaths(run_id)
    questions = change(store.read_table(old.questions, Questions))
    test = questions.filter(pl.col("split") == "test").select("question_id", "split", "gold_answer")
    right = pl.Series([is_right(number) for number in range(test.height)])
    predictions = test.with_columns(
        round=pl.lit(0),
        text=pl.lit("x"),
        answer=pl.col("gold_answer"),
        is_correct=right,
        raw_confidence=None,
        confidence=None,
    )
    training = {**CONFIG["training"], "num_rounds": SHAPE.num_rounds}
    config = {**CONFIG, "training": training, **sections}
    store.write_bytes(new.config, yaml.safe_dump(config).encode())
    for rel in ("environment.json", "dataset.json", "votes.parquet"):
        store.write_bytes(f"{new.root}/{rel}", store.read_bytes(f"{old.root}/{rel}"))
    part = store.part_files(old.metrics)[0].path
    store.write_bytes(part.replace(old.root, new.root), store.read_bytes(part))
    store.write_table(new.questions, questions, Questions)
    frame = Predictions.validate(predictions, cast=True)
    store.write_table(new.predictions("test", 0), frame, Predictions)
    student = store.local(new.best_student).with_name("_tmp-student")
    student.mkdir(parents=True)
    (student / "config.json").write_text("{}")
    store.publish_folder(student, new.best_student)
    store.write_json(new.result, Result(round=0, validation_accuracy=0.5, test={}))
    return run_id


def registered(store: Store, name: str, is_right: Callable[[int], bool], **more: object) -> Version:
    """Register such a run as version `name` of model `synthetic`."""
    return register(store, complete_run(store, f"synthetic-{name}", is_right, **more))
