"""The anti-join, generations and reuse."""

import json
import logging
import shutil

import polars as pl
import pyarrow.parquet as pq
import pytest
from polars.testing import assert_frame_equal

from data_schemas.table import METADATA_KEY
from qcrd_core.errors import DataError, StoreError
from qcrd_core.progress import progress
from qcrd_core.store.compact import compact
from qcrd_core.teacher.generation import differences
from qcrd_core.teacher.plan import prompt_hashes
from qcrd_core.teacher.rendering import estimate_tokens
from tests.support.sampling import SPEC, Sampling, make_config, numbered_questions
from tests.support.stub_engine import stub_engine
from tests.support.tables import make_questions


def test_plan_of_an_empty_store_wants_everything_and_writes_nothing(tmp_path):
    plan = Sampling(make_config(tmp_path, None), numbered_questions(7)).plan()
    assert [len(shard.keys) for shard in plan.shards] == [6, 6, 2]
    assert (plan.num_wanted, plan.num_stored, plan.num_missing) == (14, 0, 14)
    assert not list(tmp_path.iterdir())


def test_changed_temperature_makes_another_generation_and_says_so(tmp_path, caplog):
    questions = numbered_questions(2)
    with stub_engine() as engine, caplog.at_level(logging.WARNING):
        old = Sampling(make_config(tmp_path, [engine.url]), questions)
        old.run()
        new = Sampling(make_config(tmp_path, [engine.url], sampling_temperature=0.8), questions)
        new.run()
    assert old.plan().folder != new.plan().folder
    assert old.table().height == new.table().height == 4
    assert "sampling_temperature 0.7 -> 0.8" in caplog.text


def test_place_and_speed_settings_keep_the_generation(tmp_path):
    questions = numbered_questions(2)
    plain = Sampling(make_config(tmp_path, None), questions)
    other = make_config(
        tmp_path, ["http://gpu1:8000/v1"], concurrency=3, questions_per_shard=1, num_samples=9
    )
    assert Sampling(other, questions).plan().folder == plain.plan().folder


def test_changed_question_is_sampled_again_and_the_old_row_ignored(tmp_path):
    questions = numbered_questions(3)
    changed = questions.with_columns(
        question=pl.when(pl.col("question_id") == "q001").then(pl.lit("New?")).otherwise("question")
    )
    with stub_engine() as engine:
        before = Sampling(make_config(tmp_path, [engine.url]), questions)
        old = before.run()
        new = Sampling(make_config(tmp_path, [engine.url]), changed).run()
        again = before.run()
    assert engine.num_asked == 8
    is_changed = pl.col("question_id") == "q001"
    assert set(new.filter(is_changed)["text"]).isdisjoint(old.filter(is_changed)["text"])
    assert new.filter(~is_changed).equals(old.filter(~is_changed))
    assert again.equals(old)


def test_prompt_hash_depends_on_choices():
    rows = [
        {"question_id": "a", "question": "Which?", "choices": ["x", "y"]},
        {"question_id": "b", "question": "Which?", "choices": ["x", "z"]},
        {"question_id": "c", "question": "Which?", "choices": None},
    ]
    assert prompt_hashes(make_questions(rows)).n_unique() == 3


def test_differences_say_old_and_new_and_keep_long_texts_out():
    old = {"a": {"b": 1}, "text": "x" * 100, "same": 1}
    new = {"a": {"b": 2}, "text": "y" * 100, "same": 1, "more": None}
    assert differences(old, new) == ["a.b 1 -> 2", "text has changed"]


def test_rows_of_an_equal_generation_are_reused(tmp_path):
    with stub_engine() as engine:
        first = Sampling(make_config(tmp_path / "one", [engine.url]), numbered_questions(4))
        first.run()
        shutil.copytree(first.store.local(first.plan().folder), tmp_path / "shipped")
        config = make_config(tmp_path / "two", [engine.url], reuse=[str(tmp_path / "shipped")])
        second = Sampling(config, numbered_questions(6))
        plan = second.plan()
        table = second.run()
    assert (plan.reused.height, plan.num_missing, table.height) == (8, 4, 12)
    assert engine.num_asked == 12
    assert max(engine.asked.values()) == 1


def test_rows_of_another_generation_are_not_reused(tmp_path, caplog):
    with stub_engine() as engine:
        first = Sampling(make_config(tmp_path / "one", [engine.url]), numbered_questions(2))
        first.run()
    folder = first.store.local(first.plan().folder)
    config = make_config(tmp_path / "two", None, reuse=[str(folder)], sampling_temperature=0.5)
    with caplog.at_level(logging.WARNING):
        plan = Sampling(config, numbered_questions(2)).plan()
    assert (plan.reused.height, plan.num_missing) == (0, 4)
    assert "are not reused: sampling_temperature 0.7 -> 0.5" in caplog.text


def test_reuse_without_generation_json_is_refused(tmp_path):
    config = make_config(tmp_path / "store", None, reuse=[str(tmp_path)])
    with pytest.raises(StoreError, match=r"generation.json must be readable JSON.*teacher.reuse"):
        Sampling(config, numbered_questions(1)).plan()


def test_truncated_part_is_refused_and_left_alone(tmp_path):
    with stub_engine() as engine:
        sampling = Sampling(make_config(tmp_path, [engine.url]), numbered_questions(1))
        sampling.run()
    part = next(sampling.store.local(sampling.plan().folder).glob("part-*.parquet"))
    content = part.read_bytes()[:200]
    part.write_bytes(content)
    with pytest.raises(DataError, match="must be a whole Parquet file"):
        sampling.plan()
    assert part.read_bytes() == content


def test_estimate_tokens_bounds_the_plan(tmp_path):
    sampling = Sampling(make_config(tmp_path, None), numbered_questions(3))
    found = estimate_tokens(sampling.config, SPEC, sampling.questions, sampling.plan())
    assert found == {"num_samples": 6, "num_prompt_tokens": 48, "max_tokens": 96}


def _as_version_1(path):
    """Write a part again as qcrd wrote it before it knew thoughts."""
    arrow = pq.read_table(path)
    stored = json.loads(arrow.schema.metadata[METADATA_KEY])
    metadata = {METADATA_KEY: json.dumps({**stored, "version": 1, "fingerprint": None}).encode()}
    status = arrow["status"].cast("string").dictionary_encode()
    column = arrow.schema.get_field_index("status")
    old = arrow.set_column(column, "status", status).drop_columns(["reasoning"])
    pq.write_table(old.replace_schema_metadata(metadata), path)


def test_parts_of_version_1_are_used_beside_new_ones_and_stay_as_they_are(tmp_path):
    questions = numbered_questions(6)
    with stub_engine() as engine:
        before = Sampling(make_config(tmp_path, [engine.url]), questions)
        table = before.run()
        parts = sorted(tmp_path.rglob("part-*.parquet"))
        for part in parts:
            _as_version_1(part)
        content = {part: part.read_bytes() for part in parts}
        engine.writer = lambda *_: {"reasoning": "So 7.", "content": "The answer is 7."}
        after = Sampling(make_config(tmp_path, [engine.url], num_samples=3), questions).run()
        assert engine.num_asked == 6 * 3
    assert_frame_equal(after.filter(pl.col("sample_idx") < 2), table)
    assert set(after.filter(pl.col("sample_idx") == 2)["reasoning"]) == {"So 7."}
    assert {part: part.read_bytes() for part in parts} == content

    with progress("Join parts", 18, "rows") as bar:
        compact(before.store, before.plan().folder, bar)
    assert_frame_equal(
        Sampling(make_config(tmp_path, None, num_samples=3), questions).table(), after
    )
