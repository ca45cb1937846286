"""Long rationales of a run, written again by a stub; lengths are words instead of tokens."""

import re

import polars as pl
import pytest

from data_schemas import Condensed, Metrics, Questions, Rationales
from qcrd_core.config.run import validate_config
from qcrd_core.data.spec import load_spec
from qcrd_core.errors import SamplingError, StoreError
from qcrd_core.inspect.validate import validate_store
from qcrd_core.run.context import RunContext
from qcrd_core.stages import condensing
from qcrd_core.stages.condensing import condense_rationales
from qcrd_core.stages.voting import check_votes, vote_rationales
from qcrd_core.teacher.plan import prompt_hashes
from qcrd_core.vote.candidates import candidates
from tests.support.stub_engine import stub_engine
from tests.support.tables import make_questions, make_rationales

GENERATION = "abcabcabcabc"
LONG = "so we go on and on and on until"
# 7 wins in both questions; the sample that says 8 is a negative, None is a negative without answer.
ANSWERS = {"a": ["7", "7", "8", None], "b": ["7", "7", "7", "8"]}


@pytest.fixture(autouse=True)
def _words_for_tokens(monkeypatch):
    def count(_, job, *, on_event, **__):
        texts = pl.read_parquet(job.texts)["text"]
        counts = texts.str.split(" ").list.len().cast(pl.Int32)
        pl.DataFrame({"num_tokens": counts}).write_parquet(job.target)
        on_event({"advance": len(texts)})

    monkeypatch.setattr(condensing, "run_job", count)
    monkeypatch.setattr(condensing, "make_tokenizers", lambda _: None)


def _keeps(prompt, _):
    answer = re.search(r"Answer of the explanation: (.*)", prompt)[1]
    return f"In short. The answer is {answer}."


def _context(folder, engine, **sections):
    content = {
        "run": {"name": "a", "store": str(folder / "store"), "scratch": str(folder / "scratch")},
        "data": {"dataset": "word_problems"},
        "teacher": {
            "model": {"type": "hub", "name": "stub"},
            "endpoints": [engine.url],
            "num_samples": 4,
            "questions_per_shard": 1,
            "condense": {"max_tokens": 8},
        },
        "student": {"model": {"type": "scratch"}},
    }
    for name, section in sections.items():
        content[name] = {**content.get(name, {}), **section}
    context = RunContext.open(validate_config(content, "test"), "run-1")
    questions = make_questions([{"question_id": q, "gold_answer": "7"} for q in ANSWERS])
    hashes = dict(zip(questions["question_id"], prompt_hashes(questions), strict=True))
    store, paths = context.store, context.paths
    store.write_bytes(paths.config, b"")
    store.write_table(paths.questions, questions, Questions)
    store.write_json(paths.environment, {"dataset": "word_problems", "generation": GENERATION})
    store.write_json(paths.dataset, load_spec("word_problems").model_dump(mode="json"))
    rows = [
        {
            **{"question_id": q, "sample_idx": k, "prompt_hash": hashes[q], "answer": answer},
            **{"generation": GENERATION, "rationale": f"{q} {k}: {LONG} {answer}."},
        }
        for q, given in ANSWERS.items()
        for k, answer in enumerate(given)
    ]
    rows[0]["rationale"] = "Short enough."
    part = f"datasets/word_problems/rationales/generation={GENERATION}/part-1.parquet"
    store.write_table(part, make_rationales(rows), Rationales)
    vote_rationales(context)
    return context


def _verdicts(context):
    found = context.store.read_table(context.paths.condensed, Condensed)
    return {f"{q}{k}": v for q, k, v in found.select("question_id", "sample_idx", "verdict").rows()}


def _learnt(context):
    rows, _ = candidates(context, 0)
    return {
        f"{q}{k}": t for q, k, t in rows.select("question_id", "sample_idx", "rationale").rows()
    }


def test_long_positives_and_negatives_are_rewritten_and_learnt(tmp_path):
    with stub_engine(writer=_keeps) as engine:
        context = _context(tmp_path, engine)
        numbers = condense_rationales(context)

    assert _verdicts(context) == {
        **{"a1": "ok", "a2": "ok", "a3": "not_asked"},
        **{"b0": "ok", "b1": "ok", "b2": "ok", "b3": "ok"},
    }
    learnt = _learnt(context)
    assert learnt.pop("a0") == "Short enough."
    assert learnt.pop("a3").startswith("a 3: so we")
    assert set(learnt.values()) == {"In short."}
    assert (numbers["num_kept"], numbers["num_long"], numbers["num_condensed"]) == (8, 7, 6)
    assert numbers["kept_answer_share"] == 1.0
    metrics = context.store.read_table(context.paths.metrics, Metrics)
    assert metrics.filter(stage="condense", name="mean_tokens_after")["value"].to_list() == [2.0]
    # Nothing that the store's check looks at is wrong with the rewrites.
    assert [f for f in validate_store(context.store).findings if "condensed" in f.path] == []


def test_refused_rewrites_leave_the_original_and_say_why(tmp_path):
    def write(prompt, seed):
        number = int(re.search(r"Explanation: b (\d)", prompt)[1]) if ": b " in prompt else 9
        return {
            0: "In short. The answer is 5.",
            1: f"{LONG} {LONG}. The answer is 7.",
            2: "The answer is 7.",
        }.get(number) or _keeps(prompt, seed)

    def fault(body, _):
        return 400 if "Explanation: b 3" in body["messages"][-1]["content"] else None

    with stub_engine(writer=write, fault=fault) as engine:
        context = _context(tmp_path, engine)
        condense_rationales(context)

    found = _verdicts(context)
    assert [found[f"b{k}"] for k in range(4)] == ["other_answer", "too_long", "empty", "failed"]
    learnt = _learnt(context)
    assert all(learnt[f"b{k}"].startswith(f"b {k}: so we") for k in range(4))
    assert learnt["a1"] == "In short."


def test_stopped_start_goes_on_with_what_is_missing_and_ends_as_an_undisturbed_one(tmp_path):
    with stub_engine(writer=_keeps) as engine:
        whole = _context(tmp_path / "whole", engine)
        condense_rationales(whole)
        num_whole = engine.num_asked
        # The eight samples of the teacher have cost 120, and each rewrite costs 9.
        tight = {"budget": {"max_tokens": 140}, "teacher": _one_at_a_time(engine)}
        stopped = _context(tmp_path / "stopped", engine, **tight)
        with pytest.raises(SamplingError, match=r"budget.max_tokens = 140; .* are still missing"):
            condense_rationales(stopped)
        assert not stopped.store.exists(stopped.paths.condensed)
        num_before = engine.num_asked - num_whole
        again = _context(tmp_path / "stopped", engine, teacher=_one_at_a_time(engine))
        condense_rationales(again)
        assert 0 < num_before < num_whole == engine.num_asked - num_whole
        assert condense_rationales(again) == {}

    first, second = (c.store.read_table(c.paths.condensed, Condensed) for c in (whole, again))
    assert first.equals(second)


def _one_at_a_time(engine):
    return {
        "model": {"type": "hub", "name": "stub"},
        "endpoints": [engine.url],
        "num_samples": 4,
        "questions_per_shard": 1,
        "condense": {"max_tokens": 8},
        "concurrency": 1,
        "shards_in_flight": 1,
    }


def test_what_the_run_does_not_train_on_is_not_asked_for(tmp_path):
    with stub_engine(writer=_keeps) as engine:
        minority = _context(tmp_path / "1", engine, negatives={"teacher_minority": False})
        condense_rationales(minority)
        assert set(_verdicts(minority)) == {"a1", "b0", "b1", "b2"}
        num_asked = engine.num_asked
        labels = _context(tmp_path / "2", engine, loss={"alpha_contrastive": 0.0, "beta": 0.0})
        assert condense_rationales(labels)["num_kept"] == 0
        assert engine.num_asked == num_asked


def test_another_model_is_asked_at_its_servers_without_what_is_said_to_the_teacher(tmp_path):
    teacher = {"model": {"type": "hub", "name": "big"}, "endpoints": ["http://127.0.0.1:9/v1"]}
    with stub_engine(writer=_keeps) as engine:
        condense = {
            **{"max_tokens": 8, "model": "stub", "endpoints": [engine.url]},
            "extra_body": {"reasoning_effort": "low"},
        }
        said = {"system_prompt": "You are big.", "top_k": 5}
        context = _context(
            tmp_path, engine, teacher={**teacher, **said, "num_samples": 4, "condense": condense}
        )
        condense_rationales(context)
        body = engine.bodies[0]

    assert (body["model"], body["reasoning_effort"], "top_k" in body) == ("stub", "low", False)
    assert [message["role"] for message in body["messages"]] == ["user"]
    assert "ok" in _verdicts(context).values()


def test_rounds_do_not_begin_before_the_rationales_are_condensed(tmp_path):
    with stub_engine(writer=_keeps) as engine:
        context = _context(tmp_path, engine)
        with pytest.raises(StoreError, match="has no condensed rationales yet"):
            check_votes(context)
        condense_rationales(context)
    check_votes(context)


def test_rewrites_of_two_teachers_belong_to_their_generations_and_have_the_runs_numbers(tmp_path):
    second = "dddddddddddd"
    other = {"model": {"type": "imported", "generation": second}, "num_samples": 2}
    with stub_engine(writer=_keeps) as engine:
        context = _context(tmp_path, engine)
        condense_rationales(context)
        num_asked = engine.num_asked
        both = _context_of_two(engine, context, other, second)
        vote_rationales(both)
        condense_rationales(both)
        # The first teacher's rewrites are those of the run that had it alone.
        assert engine.num_asked - num_asked == 4

    verdicts = _verdicts(both)
    assert verdicts.items() >= _verdicts(context).items()
    assert {name: verdicts[name] for name in ("a4", "a5", "b4", "b5")} == dict.fromkeys(
        ("a4", "a5", "b4", "b5"), "ok"
    )
    found = both.store.read_table(both.paths.condensed, Condensed)
    of_second = found.filter(pl.col("sample_idx") >= 4)
    assert of_second["original"].str.starts_with("second").all()
    assert of_second["generation"].n_unique() == 1
    of_first = found.filter(pl.col("sample_idx") < 4)
    assert not set(of_second["generation"]) & set(of_first["generation"])
    assert _learnt(both)["a5"] == "In short."


def _context_of_two(engine, first, other, generation):
    """Another run of the same store, which also has imported rationales that are long."""
    store = first.store
    questions = store.read_table(first.paths.questions, Questions)
    rows = [
        {
            **{"question_id": q, "sample_idx": k, "answer": "7", "source": "imported"},
            **{"generation": generation, "rationale": f"second {q} {k}: {LONG} 7."},
        }
        for q in ANSWERS
        for k in range(2)
    ]
    place = f"datasets/word_problems/rationales/generation={generation}"
    store.write_table(f"{place}/part-1.parquet", make_rationales(rows), Rationales)
    store.write_json(f"{place}/generation.json", {"source": "imported"})
    content = first.config.model_dump(mode="json")
    content["teacher"] |= {"others": [other], "endpoints": [engine.url]}
    context = RunContext.open(validate_config(content, "test"), "run-2")
    store.write_table(context.paths.questions, questions, Questions)
    store.write_json(
        context.paths.environment,
        first.environment.model_copy(update={"other_generations": (generation,)}),
    )
    store.write_json(context.paths.dataset, first.read_spec().model_dump(mode="json"))
    return context
