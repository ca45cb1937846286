"""Small parts become large ones, under the eyes of readers and of others who do the same."""

from concurrent.futures import ThreadPoolExecutor

import polars as pl
import pytest

from benchmarks.scale_store import IDENTITY, make_store, open_scale
from data_schemas import Rationales
from qcrd_core.errors import StoreError
from qcrd_core.inspect.validate import validate_store
from qcrd_core.inspect.view import View
from qcrd_core.progress import Bar
from qcrd_core.store.compact import compact, join_many
from qcrd_core.store.parts import read_again
from qcrd_core.store.store import Store
from qcrd_core.teacher.generation import generation_folder
from qcrd_core.teacher.plan import plan_sampling, read_samples
from tests.support.synthetic_run import GENERATION, RUN_ID, write_synthetic_run

MANY = "qcrd_core.store.compact.MANY"
FOLDER = f"datasets/word_problems/rationales/generation={GENERATION}"
BAR = Bar("Compact", 0, "rows")


@pytest.fixture
def store(tmp_path):
    store = Store(str(tmp_path / "store"), tmp_path / "scratch")
    write_synthetic_run(store)
    return store


def test_compact_keeps_every_row_under_the_name_of_its_keys(store):
    before = store.read_table(FOLDER, Rationales)
    done = compact(store, FOLDER, BAR)
    assert (done.num_before, done.num_after, done.num_twice) == (4, 1, 0)
    assert store.read_table(FOLDER, Rationales).equals(before)
    assert validate_store(store).findings == []
    assert compact(store, FOLDER, BAR).num_after == 1


def test_compact_into_several_parts_keeps_a_question_together(store):
    before = store.read_table(FOLDER, Rationales)
    assert compact(store, FOLDER, BAR, rows_per_part=170).num_after == 2
    assert store.read_table(FOLDER, Rationales).equals(before)


def test_compact_keeps_rows_of_an_older_text_and_drops_what_stands_twice(store):
    rows = store.read_table(store.part_files(FOLDER)[0].path, Rationales).head(3)
    store.write_table(f"{FOLDER}/part-twice.parquet", rows.head(1), Rationales)
    store.write_table(
        f"{FOLDER}/part-old.parquet", rows.with_columns(prompt_hash=pl.lit("old")), Rationales
    )
    questions = View(store, RUN_ID).questions().filter(pl.col("split") == "train").collect()
    before = read_samples(store, FOLDER, questions=questions, num_samples=5)

    done = compact(store, FOLDER, BAR)

    assert (done.num_twice, done.num_after) == (1, 2)
    assert read_samples(store, FOLDER, questions=questions, num_samples=5).equals(before)
    olds = [file.path for file in store.part_files(FOLDER)]
    assert (
        sum(store.read_table(path, Rationales)["prompt_hash"].eq("old").sum() for path in olds) == 3
    )


def test_join_many_leaves_few_parts_and_parts_that_are_large(store, monkeypatch):
    assert join_many(store, FOLDER) is None
    monkeypatch.setattr(MANY, 4)
    assert join_many(store, FOLDER) is None
    monkeypatch.setattr(MANY, 3)
    done = join_many(store, FOLDER)
    assert (done.num_before, done.num_after) == (4, 1)
    monkeypatch.setattr(MANY, 1)
    assert join_many(store, FOLDER) is None
    monkeypatch.setattr(MANY, 0)
    assert join_many(store, "datasets/none/rationales/generation=0") is None


def test_readers_and_two_who_join_at_once_see_all_rows(tmp_path):
    make_store(tmp_path, 400, questions_per_part=2)
    context, folder = open_scale(tmp_path), generation_folder("word_problems", IDENTITY)
    questions, teacher = context.read_questions("train"), context.config.teacher

    def read(_):
        rows = read_samples(context.store, folder, questions=questions, num_samples=10)
        plan = plan_sampling(
            context.store, "word_problems", IDENTITY, questions=questions, teacher=teacher
        )
        return rows.height, plan.num_stored, plan.num_missing

    def join(rows_per_part):
        # Of several sizes, so that the groups of one overlap those of the other.
        return [compact(context.store, folder, BAR, n * rows_per_part) for n in (1, 4, 16)]

    with ThreadPoolExecutor(4) as pool:
        joins = [pool.submit(join, size) for size in (60, 90)]
        found = list(pool.map(read, range(6)))
        for done in joins:
            done.result()

    assert set(found) == {(400, 400, 0)}
    assert compact(context.store, folder, BAR).num_after == 1
    assert read(0) == (400, 400, 0)


def test_read_again_tells_of_what_no_reading_again_will_mend(store):
    def read():
        return store.read_table(f"{FOLDER}/part-none.parquet", Rationales)

    with pytest.raises(StoreError, match=r"part-none\.parquet could not be read"):
        read_again(store, FOLDER, read)
