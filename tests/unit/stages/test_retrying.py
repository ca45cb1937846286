"""Failed samples: counted by reason, and asked again only when a person says so."""

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from data_schemas import Rationales, Votes
from qcrd_core.config.run import validate_config
from qcrd_core.errors import ConfigError
from qcrd_core.stages.plan import begin_run, plan_run
from qcrd_core.stages.retrying import describe_failed, forget
from qcrd_core.stages.sampling import sample_teacher
from tests.support.distillation import settings_for, taught_teacher


def _filtered(body, _):
    """The stub refuses three questions: two for one reason."""
    prompt = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
    kind = sum(prompt.encode()) % 8
    return (400, {"error": ("flagged", "too long")[kind]}) if kind < 2 else None


def _plan(folder, engine, **sections):
    return plan_run(validate_config(settings_for(folder, engine, **sections), "test"))


def _sampled(folder, engine):
    plan = _plan(folder, engine)
    begin_run(plan)
    sample_teacher(plan.context)
    return plan, plan.context.store.read_table(plan.teachers[0].sampling.folder, Rationales)


def test_failed_samples_are_said_by_reason_forgotten_and_asked_again(tmp_path, caplog):
    caplog.set_level("WARNING", "qcrd_core")
    with taught_teacher(fault=_filtered) as engine:
        plan, before = _sampled(tmp_path, engine)
        failed = before.filter(pl.col("status") == "failed")
        assert 0 < failed.height < before.height
        assert f"The teacher refused {failed.height} of {before.height} samples: " in caplog.text
        said = describe_failed(plan)
        assert said.startswith(f"{failed.height} stored samples failed\n")
        for error, count in failed["error"].value_counts().rows():
            assert f"{count} x {error}" in said

        engine.fault = None
        assert _plan(tmp_path, engine).teachers[0].sampling.num_missing == 0
        num_asked = engine.num_asked
        assert forget(plan) == failed.height
        assert _plan(tmp_path, engine).teachers[0].sampling.num_missing == failed.height
        sample_teacher(plan.context)

    after = plan.context.store.read_table(plan.teachers[0].sampling.folder, Rationales)
    assert engine.num_asked == num_asked + failed.height
    assert set(after["status"]) == {"ok"}
    keys = ["question_id", "sample_idx"]
    kept = before.filter(pl.col("status") != "failed")
    assert_frame_equal(after.join(kept, on=keys, how="semi").sort(keys), kept.sort(keys))
    assert forget(plan) == 0


def test_failed_samples_of_other_questions_stay(tmp_path):
    with taught_teacher(fault=_filtered) as engine:
        plan, before = _sampled(tmp_path, engine)
        few = _plan(tmp_path, engine, data={"max_train": 12})
        ids = few.split("train")["question_id"].to_list()
        failed = before.filter(pl.col("status") == "failed")
        wanted = failed.filter(pl.col("question_id").is_in(ids))
        assert wanted.height < failed.height
        assert forget(few) == wanted.height
    left = plan.context.store.read_table(plan.teachers[0].sampling.folder, Rationales)
    assert left.filter(pl.col("status") == "failed").height == failed.height - wanted.height


def test_run_that_has_voted_is_not_changed(tmp_path):
    with taught_teacher() as engine:
        plan, _ = _sampled(tmp_path, engine)
    plan.context.store.write_table(plan.context.paths.votes, Votes.create_empty(), Votes)
    with pytest.raises(ConfigError, match=r"has already voted.*Give run.name another value"):
        forget(plan)
    with pytest.raises(ConfigError, match="has already voted"):
        describe_failed(plan)
