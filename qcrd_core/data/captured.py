"""Questions that a served student was asked, as training questions.

Their label is the right answer that somebody sent, and for all others the teacher's majority. A run
takes what was kept before today (UTC), so that a killed run finds the same questions when it is
started again that day.
"""

import logging
from datetime import UTC, datetime

import polars as pl

from data_schemas import Captured, Feedback, Questions
from qcrd_core.ids import content_hash
from qcrd_core.store.store import Store

logger = logging.getLogger(__name__)


def captured_folder(dataset: str) -> str:
    """Folder of table `captured`, relative to the store's root."""
    return f"datasets/{dataset}/captured"


def feedback_folder(dataset: str) -> str:
    """Folder of table `feedback`, relative to the store's root."""
    return f"datasets/{dataset}/feedback"


def captured_id(question: str, choices: list[str] | None) -> str:
    """Id of a question by its content: that of a data set without a column of ids."""
    return content_hash(question, *(choices or ()))


def with_captured(
    store: Store,
    dataset: str,
    questions: pl.DataFrame,
    *,
    is_all: bool = True,
    now: datetime | None = None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Add captured questions to the training questions.

    Args:
        store: Holds tables `captured` and `feedback`.
        dataset: Name of the data set.
        questions: Table `questions`, all splits. A captured question with the text and choices of
            one of them is left out: it is known, or it is held back for a test.
        is_all: Whether questions that the student answered alone are added too; otherwise only
            those of them for which a right answer was sent.
        now: The present; None asks the clock.

    Returns:
        Table `questions`, and table `feedback` with the latest right answer of each added question
        that has one.

    Raises:
        DataError: If a part is damaged.
        StoreError: If the store does not answer.
    """
    now = now or datetime.now(UTC)
    is_earlier = pl.col("created_at") < now.replace(hour=0, minute=0, second=0, microsecond=0)
    captured = store.read_table(captured_folder(dataset), Captured)
    earlier = captured.filter(is_earlier)
    known = {captured_id(*row) for row in questions.select("question", "choices").iter_rows()}
    known |= set(questions["question_id"])
    feedback = store.read_table(feedback_folder(dataset), Feedback).filter(is_earlier)
    latest = feedback.sort("created_at").unique("question_id", keep="last")
    new = earlier.filter(~pl.col("question_id").is_in(list(known)))
    if not is_all:
        is_corrected = pl.col("question_id").is_in(latest["question_id"].to_list())
        new = new.filter((pl.col("answered_by") != "student") | is_corrected)
    given = latest.join(new, on="question_id", how="semi").sort("question_id")
    logger.info(
        "%s: %d captured questions | %d of them used, %d with a right answer | %d of today wait",
        dataset,
        earlier.height,
        new.height,
        given.height,
        captured.height - earlier.height,
    )
    nothing = pl.lit(None, pl.String)
    with_answers = new.join(given.drop("created_at"), on="question_id", how="left")
    added = with_answers.sort("question_id").select(
        "question_id",
        pl.lit("train").alias("split"),
        "question",
        "choices",
        "gold_answer",
        nothing.alias("gold_target"),
        nothing.alias("template"),
        nothing.alias("messages"),
    )
    rows = [questions, Questions.validate(added, cast=True)]
    return Questions.validate(pl.concat(rows, how="vertical")), given
