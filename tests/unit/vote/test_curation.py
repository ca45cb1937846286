"""Marks: the last one counts, and new ones make a new run."""

import pytest
import yaml

from data_schemas import Curation
from qcrd_core.config.run import validate_config
from qcrd_core.errors import DataError
from qcrd_core.stages.plan import begin_run, plan_run
from qcrd_core.store.store import Store
from qcrd_core.vote.curation import marks_hash, read_marks, write_mark
from tests.support.distillation import settings_for, taught_teacher


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"), tmp_path / "scratch")


def test_later_mark_takes_the_place_of_an_earlier_one(store):
    for mark, comment in (("reject", "no"), ("keep", "x" * 5000), ("none", " why? ")):
        write_mark(store, "svamp", ("abc", "q", 1), mark, comment)
    write_mark(store, "svamp", ("abc", "q", 2), "reject", "")
    rows = store.read_table("datasets/svamp/curation", Curation)
    assert rows.select("sample_idx", "mark", "comment").rows() == [
        (1, "none", "why?"),
        (2, "reject", None),
    ]
    assert read_marks(store, "svamp", "abc")["sample_idx"].to_list() == [2]
    assert read_marks(store, "svamp", "other").is_empty()


def test_unknown_mark_is_refused(store):
    with pytest.raises(DataError, match="mark"):
        write_mark(store, "svamp", ("abc", "q", 1), "perhaps", None)


def test_marks_hash_is_of_marks_alone(store):
    write_mark(store, "svamp", ("abc", "q", 1), "reject", "one reason")
    first = marks_hash(read_marks(store, "svamp", "abc"))
    write_mark(store, "svamp", ("abc", "q", 1), "reject", "another")
    assert marks_hash(read_marks(store, "svamp", "abc")) == first != ""
    write_mark(store, "svamp", ("abc", "q", 1), "keep", None)
    assert marks_hash(read_marks(store, "svamp", "abc")) != first
    write_mark(store, "svamp", ("abc", "q", 1), "none", None)
    assert marks_hash(read_marks(store, "svamp", "abc")) == ""


def test_marks_of_the_runs_generation_make_a_new_run_that_keeps_them(tmp_path):
    with taught_teacher() as engine:
        config = validate_config(
            yaml.safe_load(yaml.safe_dump(settings_for(tmp_path, engine))), "test"
        )
        plan = plan_run(config)
        store, generation = plan.context.store, plan.teachers[0].sampling.fingerprint
        question_id = plan.split("train")["question_id"][0]
        write_mark(store, "word_problems", ("another", question_id, 0), "reject", None)
        assert plan_run(config).run_id == plan.run_id
        write_mark(store, "word_problems", (generation, question_id, 0), "reject", None)
        marked = plan_run(config)
        begin_run(marked)

    assert marked.run_id != plan.run_id
    assert marked.context.read_marks("reject").rows() == [(question_id, 0)]
    write_mark(store, "word_problems", (generation, question_id, 0), "none", None)
    assert marked.context.read_marks("reject").height == 1
