"""The plan of a run, as a person reads it."""

import pytest

from data_schemas import Rationales
from qcrd_core.config.run import validate_config
from qcrd_core.errors import ConfigError
from qcrd_core.stages.describe import describe_plan
from qcrd_core.stages.plan import plan_run
from tests.support.distillation import settings_for
from tests.support.tables import make_rationales


def _plan(folder, **teacher):
    return plan_run(validate_config(settings_for(folder, None, teacher=teacher), "test"))


def _store(plan, *texts):
    rows = [
        {"question_id": f"q{n}", "sample_idx": 0, "answer": "7", "rationale": text}
        for n, text in enumerate(texts)
    ]
    path = f"{plan.teachers[0].folder}/part-1.parquet"
    plan.context.store.write_table(path, make_rationales(rows), Rationales)


def test_plan_suggests_to_condense_if_many_stored_rationales_are_too_long(tmp_path):
    plan = _plan(tmp_path)
    assert "lengths" not in describe_plan(plan)
    _store(plan, "x" * 2000, "short", "short", "short")
    text = " ".join(describe_plan(plan).split())
    assert "about 25% of the first 4 stored rationales are longer than student.max_target" in text
    assert "teacher.condense.max_tokens=256 has them rewritten" in text


def test_plan_suggests_nothing_for_a_few_long_rationales(tmp_path):
    plan = _plan(tmp_path)
    _store(plan, "x" * 2000, *["short"] * 4)
    assert "lengths" not in describe_plan(plan)


def test_plan_names_who_condenses_and_what_it_costs_at_most(tmp_path):
    text = " ".join(describe_plan(_plan(tmp_path, condense={"max_tokens": 64})).split())
    # 24 questions with 5 samples each, and at most 256 tokens per completion.
    most = "at most 120 requests and 30,720 sampled tokens"
    assert f"condense rationales of over 64 tokens, by stub; {most}" in text


def test_rewriter_that_is_not_there_is_refused_before_the_teacher_is_asked(tmp_path):
    small = {"model": str(tmp_path / "nowhere"), "endpoints": ["http://127.0.0.1:9/v1"]}
    with pytest.raises(ConfigError, match=r"^teacher\.condense\.model\.path must be .*nowhere"):
        _plan(tmp_path, condense={"max_tokens": 64, **small})
