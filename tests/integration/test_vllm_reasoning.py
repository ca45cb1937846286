"""The real engine with a reasoning parser: its thoughts are those that we find in the raw text."""

from collections import Counter

import polars as pl
import pytest
from polars.testing import assert_series_equal

from qcrd_core.teacher.prepare import prepare_teacher
from tests.support.sampling import Sampling, make_config, numbered_questions
from tests.support.tiny_llama import make_tiny_thinker

_ARGUMENTS = ["--enforce-eager", "--max-num-seqs=16"]


def _table(store, model, *arguments, **teacher):
    config = make_config(
        store,
        None,
        model={"type": "folder", "path": str(model)},
        server={"max_model_len": 256, "extra_args": [*_ARGUMENTS, *arguments]},
        num_samples=8,
        max_new_tokens=120,
        stop=[],
        max_cut_thoughts=1.0,
        **teacher,
    )
    prepared = prepare_teacher(config.teacher.model, config.run.scratch)
    return Sampling(config, numbered_questions(8), prepared=prepared).run()


@pytest.mark.timeout(900)
def test_thoughts_of_the_engine_are_those_in_the_raw_text(tmp_path):
    model = make_tiny_thinker(tmp_path / "thinker")
    parsed = _table(tmp_path / "parsed", model, "--reasoning-parser=deepseek_r1")
    # This parser takes every completion for one that begins inside a thought.
    raw = _table(tmp_path / "raw", model, think_tags=["", "</think>"])

    keys = ["question_id", "sample_idx"]
    columns = [*keys, "reasoning", "rationale", "answer", "status"]
    both = parsed.select(columns).join(
        raw.select(columns), on=keys, suffix="_raw", maintain_order="left"
    )
    for name in ("status", "answer"):
        assert_series_equal(both[name], both[f"{name}_raw"], check_names=False)
    # A tag that opens a thought anew makes the parser drop what was thought before it; we keep it.
    for theirs, ours in both.select("reasoning", "reasoning_raw").rows():
        assert _bare(ours).endswith(_bare(theirs))
    assert both.filter(pl.col("reasoning") == pl.col("reasoning_raw")).height > 30
    counts = Counter(parsed["status"])
    assert counts["thought_only"] > 5
    assert counts["no_answer"] + counts["ok"] > 5
    assert parsed.filter(pl.col("status") != "thought_only")["rationale"].null_count() == 0


def _bare(text):
    return "".join(text.replace("<think>", "").split())
