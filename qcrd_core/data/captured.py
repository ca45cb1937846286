"""Questions that a served student was asked, as training questions.

They have no gold answer: the teacher's majority is their label. A run takes those of the days
before today (UTC), so that a killed run finds the same ones when it is started again that day.
"""

import logging
from datetime import UTC, datetime

import polars as pl

from data_schemas import Captured, Questions
from qcrd_core.ids import content_hash
from qcrd_core.store.store import Store

logger = logging.getLogger(__name__)


def captured_folder(dataset: str) -> str:
    """Folder of table `captured`, relative to the store's root."""
    return f"datasets/{dataset}/captured"


def captured_id(question: str, choices: list[str] | None) -> str:
    """Id of a question by its content: that of a data set without a column of ids."""
    return content_hash(question, *(choices or ()))


def with_captured(
    store: Store, dataset: str, questions: pl.DataFrame, now: datetime | None = None
) -> pl.DataFrame:
    """Add captured questions to the training questions.

    Args:
        store: Holds table `captured`.
        dataset: Name of the data set.
        questions: Table `questions`, all splits. A captured question with the text and choices of
            one of them is left out: it is known, or it is held back for a test.
        now: The present; None asks the clock.

    Returns:
        Table `questions`.

    Raises:
        DataError: If a part is damaged.
        StoreError: If the store does not answer.
    """
    now = now or datetime.now(UTC)
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    captured = store.read_table(captured_folder(dataset), Captured)
    earlier = captured.filter(pl.col("created_at") < today)
    known = {captured_id(*row) for row in questions.select("question", "choices").iter_rows()}
    known |= set(questions["question_id"])
    new = earlier.filter(~pl.col("question_id").is_in(list(known)))
    logger.info(
        "%s: %d captured questions | %d of them new | %d of today wait",
        dataset,
        earlier.height,
        new.height,
        captured.height - earlier.height,
    )
    nothing = pl.lit(None, pl.String)
    added = new.sort("question_id").select(
        "question_id",
        pl.lit("train").alias("split"),
        "question",
        "choices",
        nothing.alias("gold_answer"),
        nothing.alias("gold_target"),
        nothing.alias("template"),
        nothing.alias("messages"),
    )
    rows = [questions, Questions.validate(added, cast=True)]
    return Questions.validate(pl.concat(rows, how="vertical"))
