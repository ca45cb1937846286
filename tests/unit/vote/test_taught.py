"""What of a teacher's thought and explanation is taught."""

import polars as pl
import pytest

from qcrd_core.vote.candidates import decide_polarity
from qcrd_core.vote.majority import vote
from qcrd_core.vote.rationales import taught
from tests.support.tables import make_questions, make_rationales

ROWS = pl.DataFrame(
    {
        # Both; a bare answer, whose rationale is its thought; no thought; neither.
        "reasoning": ["Hm. So 12.", "So 12.", None, None],
        "rationale": ["3 * 4 = 12.", "So 12.", "3 * 4 = 12.", None],
    }
)


@pytest.mark.parametrize(
    ("what", "texts"),
    [
        ("answer", ["3 * 4 = 12.", "So 12.", "3 * 4 = 12.", None]),
        ("reasoning", ["Hm. So 12.", "So 12.", "3 * 4 = 12.", None]),
        ("both", ["Hm. So 12.\n\n3 * 4 = 12.", "So 12.", "3 * 4 = 12.", None]),
    ],
)
def test_taught_is_what_the_setting_says_or_what_there_is(what, texts):
    assert ROWS.select(taught(what))["rationale"].to_list() == texts


@pytest.mark.parametrize("finish_reason", ["length", "stop", None])
def test_thought_without_an_answer_is_undecided_however_it_ended(finish_reason):
    questions = make_questions([{"question_id": "q", "gold_answer": "12"}])
    rows = make_rationales(
        [{"question_id": "q", "sample_idx": k, "answer": "12"} for k in range(3)]
    ).with_columns(
        status=pl.Series(["ok", "ok", "thought_only"]).cast(pl.String),
        answer=pl.Series(["12", "12", None]),
        finish_reason=pl.Series(["stop", "stop", finish_reason]),
    )
    decided = decide_polarity(rows, vote(rows, questions, "abstain"), "majority")
    assert decided["polarity"].to_list() == ["positive", "positive", "undecided"]
