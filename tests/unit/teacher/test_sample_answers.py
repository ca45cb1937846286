"""Sampling from servers that think, that speak another dialect, or that want money."""

import logging
from collections import Counter

import pytest

from qcrd_core.data.answers import AnswerSpec
from qcrd_core.errors import ConfigError, SamplingError
from qcrd_core.teacher.generation import FILE, read_identity
from tests.support.sampling import SPEC, Sampling, make_config, numbered_questions
from tests.support.stub_engine import stub_engine

THOUGHT = "Maybe the answer is 999. Hmm, no."
FINAL = "3 * 4 = 12. The answer is 12."
CUT = {"finish_reason": "length"}


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch):
    monkeypatch.setattr("qcrd_core.teacher.servers.dispatch._FIRST_PAUSE_SECONDS", 0.01)


def _sampled(folder, writer, num_questions=3, **settings):
    with stub_engine(writer=writer) as engine:
        sampling = Sampling(
            make_config(folder, [engine.url], **settings), numbered_questions(num_questions)
        )
        return sampling.run(), sampling


@pytest.mark.parametrize(
    "form",
    [
        {"reasoning": THOUGHT, "content": f"\n\n{FINAL}"},
        {"reasoning_content": THOUGHT, "content": FINAL},
        {"content": f"<think>\n{THOUGHT}\n</think>\n\n{FINAL}"},
        {"content": f"{THOUGHT}\n</think>\n\n{FINAL}"},
        {"content": [{"type": "thinking", "thinking": THOUGHT}, {"type": "text", "text": FINAL}]},
    ],
    ids=["reasoning", "reasoning_content", "tags", "closing tag", "parts"],
)
def test_thought_in_every_form_is_kept_apart_and_never_read(tmp_path, form):
    table, _ = _sampled(tmp_path, lambda *_: dict(form))
    assert set(table["status"]) == {"ok"}
    assert set(table["answer"]) == {"12"}
    assert set(table["reasoning"]) == {THOUGHT}
    assert set(table["rationale"]) == {"3 * 4 = 12."}
    assert {text.strip() for text in table["text"]} == {FINAL}


@pytest.mark.parametrize(
    "form",
    [
        {"reasoning": THOUGHT, **CUT},
        {"reasoning_content": THOUGHT, "content": "", **CUT},
        {"content": f"<think>\n{THOUGHT}", **CUT},
        {"content": [{"type": "thinking", "thinking": THOUGHT}], **CUT},
    ],
    ids=["reasoning", "reasoning_content", "tags", "parts"],
)
def test_thought_that_was_cut_has_a_status_and_no_answer(tmp_path, form):
    table, sampling = _sampled(tmp_path, lambda *_: dict(form))
    assert set(table["status"]) == {"thought_only"}
    assert table["answer"].null_count() == table.height == 6
    assert set(table["reasoning"]) == {THOUGHT}
    assert sum(result.num_thought_only for result in sampling.results) == 6


def test_thought_that_the_template_opened_and_that_was_cut_is_told_by_the_others(tmp_path):
    texts = {0: f"{THOUGHT}</think>{FINAL}", 1: THOUGHT}

    def write(_, seed):
        return {"content": texts[seed % 2], **(CUT if seed % 2 else {})}

    table, _ = _sampled(tmp_path, write)
    assert Counter(table["status"]) == {"ok": 3, "thought_only": 3}
    assert set(table["answer"]) == {"12", None}
    assert set(table["reasoning"]) == {THOUGHT}


def test_run_whose_thoughts_are_cut_stops_early_and_keeps_what_it_has(tmp_path):
    def write(*_):
        return {"content": "<think>Hm.", **CUT}

    with pytest.raises(
        SamplingError, match=r"20 of the first 20 samples are only a thought.*max_new_tokens \(16\)"
    ):
        _sampled(tmp_path, write, 40, concurrency=2)
    with stub_engine(writer=write) as engine:
        sampling = Sampling(
            make_config(tmp_path, [engine.url], max_cut_thoughts=1.0), numbered_questions(40)
        )
        before = sampling.table()
        assert 20 <= before.height < 30
        assert sampling.run().height == 80  # the share is no part of the generation's name
        assert engine.num_asked == 80 - before.height


def test_thoughts_that_end_before_the_limit_lead_to_another_remedy(tmp_path):
    with pytest.raises(SamplingError, match=r"set teacher.stop=\[\] if one of answer.stop occurs"):
        _sampled(tmp_path, lambda *_: "<think>Hm.", 40)


def test_share_of_cut_thoughts_that_chance_explains_does_not_stop_a_run(tmp_path):
    table, _ = _sampled(
        tmp_path,
        lambda _, seed: {"content": "<think>Hm.", **CUT} if seed % 2 else FINAL,
        30,
    )
    assert Counter(table["status"]) == {"ok": 30, "thought_only": 30}


def test_request_carries_what_the_settings_add(tmp_path):
    with stub_engine() as engine:
        config = make_config(
            tmp_path,
            [engine.url],
            system_prompt="Be brief.",
            stop=[],
            top_k=20,
            min_p=0.05,
            extra_body={"reasoning_effort": "low", "chat_template_kwargs": {"thinking": False}},
        )
        Sampling(config, numbered_questions(1)).run()
    (body,) = engine.bodies
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert "stop" not in body
    assert (body["top_k"], body["min_p"], body["reasoning_effort"]) == (20, 0.05, "low")
    assert body["chat_template_kwargs"] == {"thinking": False}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"extra_body": {"seed": 3}}, r"must not hold seed.*set teacher.seed"),
        (
            {"extra_body": {"response_format": {}}, "structured_output": True},
            r"must not hold response_format",
        ),
        (
            {"api": "completions", "structured_output": True},
            r"structured_output needs teacher\.api=chat",
        ),
        ({"extra_body": {"max_tokens": 3}}, r"must not hold max_tokens.*teacher.max_new_tokens"),
        ({"system_prompt": "x", "api": "completions"}, "system_prompt needs teacher.api=chat"),
        ({"think_tags": ["<think>", ""]}, "think_tags must have a closing tag"),
        ({"stop": [""]}, "teacher.stop must hold non-empty texts"),
    ],
)
def test_setting_that_a_request_cannot_hold_is_refused(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        make_config(tmp_path, None, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"system_prompt": "Be brief."},
        {"stop": []},
        {"top_k": 20},
        {"min_p": 0.05},
        {"extra_body": {"reasoning_effort": "low"}},
        {"think_tags": ["", "</think>"]},
        {"structured_output": True},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_setting_that_changes_the_samples_names_another_generation_and_run(tmp_path, settings):
    usual, other = make_config(tmp_path, None), make_config(tmp_path, None, **settings)
    questions = numbered_questions(1)
    folders = {Sampling(config, questions).plan().folder for config in (usual, other)}
    assert len(folders) == 2
    assert usual.run_id("0") != other.run_id("0")


def test_what_is_taught_names_another_run_of_the_same_generation(tmp_path):
    usual, other = make_config(tmp_path, None), make_config(tmp_path, None, rationale="both")
    questions = numbered_questions(1)
    folders = {Sampling(config, questions).plan().folder for config in (usual, other)}
    assert len(folders) == 1
    assert usual.run_id("0") != other.run_id("0")


def test_dialect_is_learnt_once_said_once_and_kept_with_the_generation(tmp_path, caplog):
    def fault(body, _):
        for key, text in (("seed", "Unsupported parameter: 'seed'"), ("logprobs", "no 'logprobs'")):
            if key in body:
                return 400, {"error": {"message": text, "param": key}}
        return None

    caplog.set_level(logging.WARNING, "qcrd_core.teacher")
    with stub_engine(fault=fault) as engine:
        config = make_config(tmp_path, [engine.url], num_samples=2, shards_in_flight=1)
        sampling = Sampling(config, numbered_questions(12))
        table = sampling.run()
        num_asked = len(engine.bodies)
    assert set(table["status"]) == {"ok"}
    # At most the 3 requests of the first shard meet each of the two refusals.
    assert num_asked <= 12 + 2 * 3
    said = [record.getMessage() for record in caplog.records if "refused a key" in record.message]
    assert len(said) == 2
    folder = sampling.plan().folder
    kept = sampling.store.read_json(f"{folder}/{FILE}", dict)["dialects"]
    assert kept == {
        engine.url: [
            "it gets no seed, so its samples cannot be drawn again",
            "it is not asked for log-probabilities",
        ]
    }
    # It is no part of the identity: the generation is found again.
    assert read_identity(sampling.store, folder) == sampling.plan().identity
    assert sampling.plan().num_missing == 0


def test_key_that_the_user_asked_for_is_never_left_out(tmp_path):
    refused = (400, {"error": {"message": "Unsupported parameter: 'top_k'", "param": "top_k"}})
    with stub_engine(fault=lambda *_: refused) as engine:
        sampling = Sampling(make_config(tmp_path, [engine.url], top_k=5), numbered_questions(3))
        with pytest.raises(SamplingError, match=r"refused all 6 requests.*top_k"):
            sampling.run()
    assert all(body["top_k"] == 5 for body in engine.bodies)


def test_server_gets_the_schema_and_its_completions_are_unfolded(tmp_path):
    schema = {"type": "object", "properties": {"sum": {"type": "integer"}}}
    spec = SPEC.model_copy(update={"answer": AnswerSpec(kind="json", json_schema=schema)})
    written = '{"rationale": "7 + 5.", "answer": {"sum": 12}}'
    with stub_engine(writer=lambda *_: written) as engine:
        config = make_config(tmp_path, [engine.url], structured_output=True)
        table = Sampling(config, numbered_questions(1), spec=spec).run()
    asked = engine.bodies[0]["response_format"]
    assert asked["json_schema"]["schema"]["properties"]["answer"] == schema
    assert set(table["rationale"]) == {"7 + 5."}
    assert set(table["answer"]) == {'{"sum": 12}'}


def test_server_that_refuses_a_schema_is_asked_for_nothing_else(tmp_path):
    refused = (400, {"error": {"message": "Unknown parameter: 'response_format'."}})
    spec = SPEC.model_copy(update={"answer": AnswerSpec(kind="json", json_schema={})})
    with stub_engine(fault=lambda *_: refused) as engine:
        config = make_config(tmp_path, [engine.url], structured_output=True)
        with pytest.raises(SamplingError, match=r"refused all .*response_format"):
            Sampling(config, numbered_questions(2), spec=spec).run()
    assert all("response_format" in body for body in engine.bodies)


def test_error_in_a_200_is_one_failed_row_with_the_servers_words(tmp_path):
    def fault(body, _):
        if "q001" in body["messages"][-1]["content"]:
            return 200, {"error": {"message": "prompt was flagged", "code": 403}}
        return None

    with stub_engine(fault=fault) as engine:
        table = Sampling(make_config(tmp_path, [engine.url]), numbered_questions(3)).run()
    assert table["status"].to_list() == ["ok", "ok", "failed", "failed", "ok", "ok"]
    assert set(table["error"].drop_nulls()) == {"HTTP 200 with an error: prompt was flagged"}


def test_account_without_money_ends_the_run_with_all_that_was_paid_for(tmp_path):
    num_paid = 0

    def fault(*_):
        nonlocal num_paid
        num_paid += 1
        return None if num_paid <= 4 else (402, {"error": {"message": "Insufficient credits."}})

    questions = numbered_questions(6)
    with stub_engine(fault=fault) as engine:
        config = make_config(tmp_path, [engine.url], concurrency=1)
        sampling = Sampling(config, questions)
        with pytest.raises(SamplingError, match=r"QCRD_API_KEY has no money left.*is kept; top up"):
            sampling.run()
        assert sampling.table()["status"].to_list() == ["ok"] * 4
        engine.fault = None
        assert sampling.run()["status"].to_list() == ["ok"] * 12
    assert set(engine.asked.values()) <= {1, 2}  # the refused one was asked again


def test_server_without_money_is_left_for_the_other(tmp_path):
    with stub_engine(fault=lambda *_: (402, {})) as poor, stub_engine() as other:
        config = make_config(tmp_path, [poor.url, other.url])
        table = Sampling(config, numbered_questions(4)).run()
    assert table["status"].to_list() == ["ok"] * 8


def test_conflict_is_asked_again(tmp_path):
    with stub_engine(fault=lambda _, before: None if before else (409, {})) as engine:
        table = Sampling(make_config(tmp_path, [engine.url]), numbered_questions(2)).run()
    assert table["status"].to_list() == ["ok"] * 4
