"""A run with two teachers, two stubs of different models: planned, sampled, voted, looked at."""

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from starlette.testclient import TestClient

from data_schemas import Curation, Polarity, Rationales, Votes
from explorer.app import make_app
from explorer.data import Explorer
from qcrd_core.config.run import validate_config
from qcrd_core.data.imported import write_import
from qcrd_core.errors import ConfigError, DataError, SamplingError
from qcrd_core.ids import fingerprint
from qcrd_core.inspect.audit.audit import audit
from qcrd_core.inspect.audit.page import audit_text, render
from qcrd_core.inspect.validate import validate_store
from qcrd_core.inspect.view import View
from qcrd_core.ops.estimate import measure_store
from qcrd_core.ops.janitor import Retention, find_waste
from qcrd_core.report.data import collect_run
from qcrd_core.report.page import render as render_report
from qcrd_core.report.run_page import teacher_rows
from qcrd_core.report.summary import last_values, servers
from qcrd_core.stages.describe import describe_plan
from qcrd_core.stages.plan import begin_run, plan_run
from qcrd_core.stages.retrying import describe_failed, forget
from qcrd_core.stages.sampling import find_missing, sample_teacher
from qcrd_core.stages.voting import vote_rationales
from qcrd_core.vote.candidates import candidates
from qcrd_core.vote.rationales import read_rationales
from tests.support.distillation import (
    NUM_TRAIN,
    NUM_WEAK,
    settings_for,
    settings_for_two,
    taught_teacher,
    two_teachers,
)

KEYS = ["question_id", "sample_idx"]
NUM_GOOD = 5


def _plan(*arguments, **sections):
    return plan_run(validate_config(settings_for_two(*arguments, **sections), "test"))


def _voted(folder, **sections):
    with two_teachers() as engines:
        plan = _plan(folder, *engines, voting={"weights": "precision"}, **sections)
        begin_run(plan)
        sample_teacher(plan.context)
    vote_rationales(plan.context)
    return plan


@pytest.fixture(scope="module")
def voted(tmp_path_factory):
    return _voted(tmp_path_factory.mktemp("voted"))


def test_run_counts_the_samples_of_its_teachers_one_after_the_other(voted):
    rows = read_rationales(voted.context)
    names = [each.generation for each in voted.teachers]

    assert rows.height == NUM_TRAIN * (NUM_GOOD + NUM_WEAK)
    assert rows.select(KEYS).rows() == sorted(rows.select(KEYS).rows())
    for name, model, numbers in zip(names, ("stub", "weak"), (range(5), range(5, 8)), strict=True):
        of_one = rows.filter(generation=name)
        assert set(of_one["model"]) == {model}
        assert set(of_one["sample_idx"]) == set(numbers)
    # In the store each generation counts from 0.
    stored = voted.context.store.read_table(voted.teachers[1].folder, Rationales)
    assert set(stored["sample_idx"]) == set(range(NUM_WEAK))


def test_samples_are_those_of_a_run_with_each_teacher_alone(voted, tmp_path):
    with two_teachers() as engines:
        settings = settings_for_two(tmp_path, *engines)
        alone = dict(settings["teacher"]["others"][0])
        plan = plan_run(validate_config({**settings, "teacher": alone}, "test"))
        begin_run(plan)
        sample_teacher(plan.context)
        num_asked = engines[1].num_asked
        both = plan_run(validate_config(settings, "test"))
        assert [each.sampling.num_missing for each in both.teachers] == [NUM_GOOD * NUM_TRAIN, 0]
        begin_run(both)
        assert find_missing(both.context) == NUM_GOOD * NUM_TRAIN
        done = sample_teacher(both.context)
        assert engines[1].num_asked == num_asked
    assert (done["num_stored"], done["num_sampled"]) == (72, 120)

    theirs = read_rationales(plan.context).with_columns(pl.col("sample_idx") + NUM_GOOD)
    ours = read_rationales(voted.context).filter(generation=plan.teachers[0].generation)
    drop = ("created_at", "run_id")
    assert_frame_equal(ours.drop(drop), theirs.drop(drop))


def test_weighted_vote_is_right_where_the_weak_teacher_misled_and_both_are_stored(voted):
    context = voted.context
    data = collect_run(context.store, context.paths.run_id)
    teachers, vote = (last_values(data.metrics, stage) for stage in ("teachers", "vote"))

    assert teachers["0 num_samples"] == NUM_GOOD * NUM_TRAIN
    assert teachers["1 num_right"] < teachers["1 num_known"] / 2
    assert teachers["0 weight"] > 1 > teachers["1 weight"]
    assert vote["majority_accuracy"] >= teachers["0 majority_accuracy"]
    assert vote["majority_accuracy"] >= teachers["unweighted_majority_accuracy"]
    # Every rationale of the vote has its polarity under its number, and rounds read it.
    polarity = context.store.read_table(context.paths.polarity, Polarity)
    assert polarity.height == NUM_TRAIN * (NUM_GOOD + NUM_WEAK)
    rows, counts = candidates(context, 0)
    assert sum(counts.values()) == rows.height
    learnt = rows.join(read_rationales(context, (*KEYS, "model")), on=KEYS)
    weak = learnt.filter(model="weak")
    assert weak["rationale"].str.starts_with("I guess").all()
    assert set(learnt["model"]) == {"stub", "weak"}


def test_report_and_audit_show_each_teacher_and_both_votes(voted):
    context = voted.context
    data = collect_run(context.store, context.paths.run_id)
    found = audit(View(context.store, context.paths.run_id))

    assert found.num_rationales == NUM_TRAIN * (NUM_GOOD + NUM_WEAK)
    assert [row["teacher"] for row in teacher_rows(context)] == ["stub", "weak"]
    text = audit_text(found)
    assert "weighted by precision" in text
    assert "; unweighted: " in text
    assert text.splitlines()[text.splitlines().index(found.teachers.summary) - 1].startswith("weak")
    for page in (render(found), render_report(data)):
        assert "<h2>Teachers</h2>" in page
        assert "<td>weak</td>" in page
    names = [str(server["url"]).partition(" (")[2] for server in servers(data)]
    assert sorted(names) == ["stub)", "weak)"]
    assert "teacher stub, weak" in render_report(data)


def test_views_have_the_runs_numbers_and_store_and_run_are_whole(voted):
    context = voted.context
    view = View(context.store, context.paths.run_id)
    rows = view.rows(("question_id", "sample_idx", "model", "mark")).collect()

    assert set(rows.filter(model="weak")["sample_idx"]) == set(range(5, 8))
    assert rows.select(KEYS).is_duplicated().sum() == 0
    assert View(context.store, None).rows(("sample_idx",)).collect()["sample_idx"].max() == 4
    assert validate_store(context.store).findings == []
    waste = find_waste(context.store, context.config.run.scratch, Retention(days=1, keep_runs=0))
    assert [item for item in waste if item.kind == "generation"] == []


def test_mark_of_a_second_teachers_sample_is_followed_by_the_next_run(tmp_path):
    plan = _voted(tmp_path)
    context, (good, weak) = plan.context, (each.generation for each in plan.teachers)
    question_id = plan.split("train")["question_id"][0]
    origin = "http://127.0.0.1:8400"
    app = make_app(Explorer(context.config.run.store, tmp_path / "explorer"))
    with TestClient(app, base_url=origin, follow_redirects=False) as client:
        page = client.get(f"/runs/{context.paths.run_id}/question/{question_id}").text
        for sample, mark, generation in (
            (6, "reject", weak),
            (2, "keep", plan.teachers[0].generation),
        ):
            data = {"generation": generation, "question_id": question_id}
            data |= {"sample_idx": str(sample), "mark": mark}
            path = f"/runs/{context.paths.run_id}/mark"
            assert client.post(path, data=data, headers={"origin": origin}).status_code == 303
    assert "weak" in page
    marks = context.store.read_table("datasets/word_problems/curation", Curation)
    assert set(marks.select("generation", "sample_idx").rows()) == {
        (weak, 1),
        (good, 2),
    }
    shown = View(context.store, context.paths.run_id).rows(("question_id", "sample_idx", "mark"))
    marked = shown.filter(pl.col("mark").is_not_null()).sort("sample_idx").collect()
    assert marked["sample_idx"].to_list() == [2, 6]

    again = plan_run(context.config)
    begin_run(again)
    assert again.run_id != plan.run_id
    assert again.context.read_marks("reject").rows() == [(question_id, 6)]
    assert again.context.read_marks("keep").rows() == [(question_id, 2)]
    kept = read_rationales(again.context).filter(question_id=question_id)
    assert kept["sample_idx"].to_list() == [0, 1, 2, 3, 4, 5, 7]


def test_run_of_one_teacher_records_nothing_of_several(tmp_path):
    plan = plan_run(validate_config(settings_for(tmp_path, None), "test"))
    begin_run(plan)

    written = plan.context.store.read_bytes(plan.context.paths.environment).decode()
    assert plan.teachers[0].generation in written
    assert "other_generations" not in written
    assert "others" not in plan.context.store.read_bytes(plan.context.paths.config).decode()


def test_dry_run_shows_each_teacher_with_its_prompt(tmp_path):
    with two_teachers() as engines:
        text = describe_plan(_plan(tmp_path, *engines))

    lines = [line.split() for line in text.splitlines()]
    assert [words[1] for words in lines if words[0] == "teacher"] == ["stub", "weak"]
    assert [words[1] for words in lines if words[0] == "samples"] == ["120", "72"]
    assert "  vote            over 8 samples per question, each counts the same\n" in text


def test_generation_of_another_teacher_is_no_change_of_settings(tmp_path, caplog):
    with two_teachers() as engines:
        plan = _plan(tmp_path, *engines)
        begin_run(plan)
        find_missing(plan.context)
        assert "drawn with other settings" not in caplog.text
        changed = settings_for_two(tmp_path, *engines)
        changed["teacher"]["others"][0]["sampling_temperature"] = 0.9
        other = plan_run(validate_config(changed, "test"))
        begin_run(other)
        find_missing(other.context)
    # Compared with the weak teacher's earlier samples, not with those of the good one.
    assert caplog.text.count("drawn with other settings") == 1
    assert "sampling starts again: sampling_temperature 0.7 -> 0.9" in caplog.text


def test_budget_is_one_over_all_teachers_and_a_higher_one_continues(voted, tmp_path):
    first = read_rationales(voted.context).filter(generation=voted.teachers[0].generation)
    num_tokens = int(first.select(pl.col("num_prompt_tokens") + pl.col("num_tokens")).sum().item())
    with two_teachers() as engines:
        settings = settings_for_two(tmp_path, *engines, budget={"max_tokens": num_tokens + 1})
        settings["teacher"]["others"][0] |= {"concurrency": 1, "shards_in_flight": 1}
        plan = plan_run(validate_config(settings, "test"))
        begin_run(plan)
        with pytest.raises(SamplingError, match=rf"{num_tokens + 1:,}; .* of 72 samples are still"):
            sample_teacher(plan.context)
        assert engines[0].num_asked == NUM_GOOD * NUM_TRAIN
        num_asked = engines[1].num_asked
        assert 0 < num_asked < 72
        settings["budget"]["max_tokens"] *= 10
        more = plan_run(validate_config(settings, "test"))
        assert more.run_id == plan.run_id
        assert sample_teacher(more.context)["num_sampled"] == 72 - num_asked
    drop = ("created_at", "run_id")
    ours, theirs = (read_rationales(each.context).drop(drop) for each in (more, voted))
    assert_frame_equal(ours, theirs)


def test_failed_samples_of_all_teachers_are_counted_and_asked_again(tmp_path):
    def refuse(body, _):
        return (400, {"error": "flagged"}) if sum(body["prompt"].encode()) % 4 == 0 else None

    with two_teachers(fault=refuse) as engines:
        plan = _plan(tmp_path, *engines)
        begin_run(plan)
        num_failed = sample_teacher(plan.context)["num_failed"]
        assert num_failed > 0
        assert describe_failed(plan).startswith(f"{num_failed} stored samples failed\n")
        assert forget(plan) == num_failed
        missing = [each.sampling.num_missing for each in _plan(tmp_path, *engines).teachers]
        assert missing == [0, num_failed]


def test_one_model_asked_twice_in_the_same_way_is_refused_and_with_another_seed_is_not(tmp_path):
    def twice(engine, **changes):
        teacher = settings_for(tmp_path, engine)["teacher"]
        content = settings_for(tmp_path, engine, teacher={"others": [{**teacher, **changes}]})
        return plan_run(validate_config(content, "test"))

    with taught_teacher() as engine:
        message = (
            r"teacher\.others\.0 must differ from teacher in what it is asked, or the same samples "
            r"would vote twice; got generation \w{12} in both"
        )
        with pytest.raises(ConfigError, match=message):
            twice(engine, num_samples=2)
        text = describe_plan(twice(engine, seed=1))
    assert [
        line.partition("teacher")[2].strip()
        for line in text.splitlines()
        if line.startswith("  teacher")
    ] == ["stub (1)", "stub (2)"]


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ({"type": "folder", "path": "./nowhere"}, r"^teacher\.others\.0\.model\.path must"),
        (
            {"type": "imported", "generation": "0" * 12},
            r"^teacher\.others\.0\.model\.generation must name an imported generation",
        ),
    ],
    ids=["folder", "imported"],
)
def test_second_teacher_that_is_not_there_is_named(tmp_path, model, sentence):
    with two_teachers() as engines:
        content = settings_for_two(tmp_path, *engines)
        content["teacher"]["others"] = [{"model": model, "endpoints": [engines[1].url]}]
        with pytest.raises((ConfigError, DataError), match=sentence):
            plan_run(validate_config(content, "test"))


def test_imported_rationales_and_a_sampled_teacher_vote_together(tmp_path, voted):
    rows = read_rationales(voted.context).filter(generation=voted.teachers[0].generation)
    with two_teachers() as engines:
        plan = _plan(tmp_path, *engines)
    identity = {"source": "imported", "name": "notes"}
    generation = fingerprint(identity)
    imported = rows.with_columns(
        source=pl.lit("imported").cast(rows.schema["source"]), generation=pl.lit(generation)
    )
    target = plan.context.store
    write_import(
        target, "word_problems", identity, questions=plan.split("train"), rationales=imported
    )
    model = {"type": "imported", "generation": generation}
    with two_teachers() as engines:
        content = settings_for_two(tmp_path, *engines)
        content["teacher"] = {
            "model": model,
            "num_samples": 4,
            "others": content["teacher"]["others"],
        }
        mixed = plan_run(validate_config(content, "test"))
        begin_run(mixed)
        assert sample_teacher(mixed.context)["num_sampled"] == NUM_WEAK * NUM_TRAIN
    vote_rationales(mixed.context)
    found = read_rationales(mixed.context, ("source",))
    assert dict(found["source"].cast(pl.String).value_counts().rows()) == {
        "imported": 4 * NUM_TRAIN,
        "teacher": NUM_WEAK * NUM_TRAIN,
    }
    votes = mixed.context.store.read_table(mixed.context.paths.votes, Votes)
    assert set(votes["num_samples"]) == {4 + NUM_WEAK}
    assert validate_store(target).findings == []


def test_weights_by_precision_need_a_gold_answer_before_anything_is_asked(tmp_path):
    for split, first in (("train", 0), ("validation", 20), ("test", 40)):
        lines = [
            f'{{"text": "What is {n} + {n}?", "result": {"null" if split == "train" else 2 * n}}}\n'
            for n in range(first, first + 20)
        ]
        (tmp_path / f"{split}.jsonl").write_text("".join(lines))
    spec = tmp_path / "notes.yaml"
    spec.write_text(
        "name: notes\nsource: {type: files, train: train.jsonl, validation: validation.jsonl, "
        "test: test.jsonl}\ncolumns: {question: text, gold_answer: result}\n"
        "answer: {kind: number}\n"
    )
    sections = {"data": {"dataset": str(spec), "label": "majority"}}
    with two_teachers() as engines:
        content = settings_for_two(tmp_path, *engines, voting={"weights": "precision"}, **sections)
        with pytest.raises(ConfigError, match="needs training questions with a gold answer"):
            plan_run(validate_config(content, "test"))


def test_estimate_of_several_teachers_is_refused(tmp_path):
    with two_teachers() as engines:
        config = validate_config(settings_for_two(tmp_path, *engines), "test")
    with pytest.raises(ConfigError, match=r"estimates one teacher, .*; teacher\.others has 1"):
        measure_store(config)
