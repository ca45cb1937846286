"""The server with a real, untrained student; requests go to the application itself."""

import asyncio
import json
from collections import Counter
from contextlib import asynccontextmanager

import httpx
import pytest

from data_schemas import Captured, Feedback
from qcrd_core.errors import ConfigError
from qcrd_core.registry.registry import promote, rollback
from qcrd_core.serving.app import ServerOptions, make_app
from qcrd_core.serving.batches import Batches
from qcrd_core.serving.capture import Capture
from qcrd_core.serving.metrics import ServerMetrics
from qcrd_core.serving.source import find_student, follow
from qcrd_core.serving.student import ServedStudent
from qcrd_core.store.store import Store
from qcrd_core.student.metadata import read_metadata
from qcrd_core.student.predict import load_answerer
from tests.support.served import TEXTS, publish_version, write_student

_KEY = {"Authorization": "Bearer secret"}


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    folder = write_student(tmp_path_factory.mktemp("student"))
    return ServedStudent.load(folder, "tiny/a", batch_size=8)


@asynccontextmanager
async def _client(student, *, source=None, max_waiting=1000, keeps=None, **options):
    batches = Batches(student, batch_size=8, max_waiting=max_waiting, metrics=ServerMetrics())
    background = None
    if source is not None:
        background = lambda: follow(batches, source, seconds=0.02)  # noqa: E731
    capture = None
    if keeps is not None:
        capture = Capture(keeps, batches.metrics)
        capture.open("pens")
    app = make_app(
        batches,
        ServerOptions("tiny", "secret", **options),
        capture=capture,
        background=background,
    )
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://s", headers=_KEY) as client,
    ):
        yield client


def _chat(question, **more):
    return {"model": "tiny", "messages": [{"role": "user", "content": question}], **more}


def _ask(student, *requests, **options):
    """Answers to (method, path, keyword arguments), sent at the same time."""

    async def run():
        async with _client(student, **options) as client:
            return await asyncio.gather(*(client.request(m, p, **kw) for m, p, kw in requests))

    return asyncio.run(run())


def _post(content, path="/v1/chat/completions"):
    return ("POST", path, {"json": content})


def test_chat_gives_the_answers_of_the_student(student):
    answers = _ask(student, *(_post(_chat(text)) for text in TEXTS))
    expected = student.answer(TEXTS)
    assert len({reply.answer for reply in expected}) > 3  # otherwise a mix-up would not show
    for answer, reply in zip(answers, expected, strict=True):
        content = answer.json()
        (choice,) = content["choices"]
        assert (content["object"], content["model"]) == ("chat.completion", "tiny")
        assert content["system_fingerprint"] == "tiny/a"
        assert choice["message"]["content"] == reply.answer
        assert (choice["message"]["refusal"] is None) == (reply.answer is not None)
        assert (choice["confidence"], choice["answered_by"]) == (None, "student")
        assert content["usage"] == {
            "prompt_tokens": reply.num_prompt_tokens,
            "completion_tokens": reply.num_tokens,
            "total_tokens": reply.num_prompt_tokens + reply.num_tokens,
        }


def test_completions_give_a_choice_per_prompt(student):
    content = {"model": "tiny", "prompt": TEXTS[:3]}
    (answer,) = _ask(student, _post(content, "/v1/completions"))
    expected = [reply.answer or "" for reply in student.answer(TEXTS[:3])]
    assert [choice["text"] for choice in answer.json()["choices"]] == expected
    assert [choice["index"] for choice in answer.json()["choices"]] == [0, 1, 2]


def test_stream_is_one_chunk_the_usage_and_done(student):
    request = _chat(TEXTS[0], stream=True, stream_options={"include_usage": True})
    (answer,) = _ask(student, _post(request))
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, last = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert last == "[DONE]"
    chunk, usage = map(json.loads, events)
    assert chunk["object"] == "chat.completion.chunk"
    assert chunk["choices"][0]["delta"]["content"] == student.answer(TEXTS[:1])[0].answer
    assert chunk["choices"][0]["finish_reason"] in {"stop", "length"}
    assert usage["usage"]["total_tokens"] > 0


def test_models_health_and_metrics(student):
    models, health, metrics = _ask(
        student, *(("GET", path, {}) for path in ("/v1/models", "/health", "/metrics"))
    )
    assert [model["id"] for model in models.json()["data"]] == ["tiny"]
    assert health.json() == {"status": "ok", "student": "tiny/a"}
    assert 'qcrd_student{student="tiny/a"} 1.0' in metrics.text


@pytest.mark.parametrize(
    ("path", "request_", "status", "code"),
    [
        (
            "/v1/chat/completions",
            {"headers": {"Authorization": "Bearer x"}},
            401,
            "invalid_api_key",
        ),
        ("/v1/chat/completions", {"headers": {"Authorization": "ä"}}, 401, "invalid_api_key"),
        ("/v1/chat/completions", {"content": b"\x00{"}, 400, None),
        ("/v1/chat/completions", {"content": b"x" * 3000}, 413, "request_too_large"),
        ("/v1/chat/completions", {"json": _chat("a?") | {"model": "x"}}, 404, "model_not_found"),
        ("/v1/chat/completions", {"json": _chat("box " * 300)}, 400, None),
        ("/v1/embeddings", {"json": {}}, 404, None),
    ],
    ids=["wrong key", "no latin key", "nonsense", "too large", "other model", "too long", "path"],
)
def test_refusals_are_openai_error_objects(student, path, request_, status, code):
    if "headers" in request_:
        request_ = {"headers": {"Authorization": request_["headers"]["Authorization"].encode()}}
    (answer,) = _ask(student, ("POST", path, request_), max_body_bytes=2000)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"].endswith(".")


def test_one_bad_question_leaves_the_others_of_its_batch_alone(student):
    bad, good = _ask(student, _post(_chat("box " * 60)), _post(_chat(TEXTS[0])))
    assert (bad.status_code, good.status_code) == (400, 200)
    assert "student.max_input_tokens = 64" in bad.json()["error"]["message"]


def test_more_questions_than_may_wait_are_refused_with_429(student):
    answers = _ask(student, *(_post(_chat(text)) for text in TEXTS), max_waiting=4)
    counts = Counter(answer.status_code for answer in answers)
    assert set(counts) == {200, 429}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["error"]["type"] == "rate_limit_error"


def _feedback(student, store, *bodies):
    """Answers to feedback; each body gets the id of the first question, unless it has one."""

    async def run():
        async with _client(student, keeps=store) as client:
            asked = await client.post("/v1/chat/completions", json=_chat(TEXTS[0]))
            named = {"question_id": asked.json()["choices"][0]["question_id"]}
            sent = [{**named, **body} if isinstance(body, dict) else body for body in bodies]
            return [await client.post("/v1/feedback", json=body) for body in sent]

    return asyncio.run(run())


def test_right_answer_is_kept_in_its_canonical_form(student, tmp_path):
    store = Store(str(tmp_path / "store"), tmp_path / "scratch")
    first, again, other = _feedback(
        student, store, {"answer": " Twelve. "}, {"answer": "twelve"}, {"answer": 12}
    )
    assert first.json()["answer"] == "twelve"
    assert [one.json()["is_new"] for one in (first, again, other)] == [True, False, True]
    stored = store.read_table("datasets/pens/feedback", Feedback)
    assert stored.sort("created_at")["gold_answer"].to_list() == ["twelve", "12"]
    captured = store.read_table("datasets/pens/captured", Captured)
    assert set(stored["question_id"]) == set(captured["question_id"])


def test_feedback_that_breaks_a_rule_is_refused(student, tmp_path):
    store = Store(str(tmp_path / "store"), tmp_path / "scratch")
    answers = _feedback(
        student,
        store,
        {"answer": ""},
        {"answer": None},
        {"answer": True},
        {"answer": "x" * 20_001},
        {"answer": "12", "why": "because"},
        {"answer": "12", "question_id": 7},
        ["12"],
        {"answer": "12", "question_id": "0123456789abcdef"},
    )
    assert [one.status_code for one in answers] == [400] * 7 + [404]
    assert all(one.json()["error"]["message"].endswith(".") for one in answers)
    assert store.read_table("datasets/pens/feedback", Feedback).is_empty()


def test_feedback_needs_the_key_and_a_server_that_keeps_questions(student):
    body = {"question_id": "0123456789abcdef", "answer": "12"}
    keyless, unkept = _ask(
        student,
        ("POST", "/v1/feedback", {"json": body, "headers": {"Authorization": "Bearer x"}}),
        ("POST", "/v1/feedback", {"json": body}),
    )
    assert (keyless.status_code, unkept.status_code) == (401, 404)
    assert "--capture" in unkept.json()["error"]["message"]


class FailsOnce:
    """An answerer that fails at its first batch."""

    def __init__(self, answerer):
        self.answerer, self.metadata, self.has_failed = answerer, answerer.metadata, False

    def check_lengths(self, questions):
        return self.answerer.check_lengths(questions)

    def answer(self, questions, emit):
        if self.has_failed:
            return self.answerer.answer(questions, emit)
        self.has_failed = True
        message = "CUDA out of memory"
        raise RuntimeError(message)


def test_fault_of_the_student_is_a_500_and_the_next_question_is_answered(tmp_path):
    folder = write_student(tmp_path / "s")
    answerer = load_answerer(folder, read_metadata(folder), batch_size=8)

    async def run():
        async with _client(ServedStudent(FailsOnce(answerer), folder, "s")) as client:
            return [await client.post("/v1/chat/completions", json=_chat(TEXTS[0])) for _ in "ab"]

    first, second = asyncio.run(run())
    assert (first.status_code, second.status_code) == (500, 200)
    assert first.json()["error"]["type"] == "server_error"
    assert "CUDA" not in first.text


def test_student_of_several_columns_takes_a_json_object(tmp_path):
    folder = write_student(tmp_path / "s", question_template="{fact} {ask}")
    student = ServedStudent.load(folder, "s", batch_size=8)
    whole, no_object, lacking = student.answer(
        ['{"fact": "A box holds 4.", "ask": "How many?"}', "How many?", '{"fact": "x"}']
    )
    assert whole.question == "A box holds 4. How many?"
    assert "must be a JSON object" in str(no_object)
    assert "must have the column ask" in str(lacking)


def test_student_of_conversations_takes_all_turns(tmp_path):
    folder = write_student(tmp_path / "chat", source="chat")
    student = ServedStudent.load(folder, "chat", batch_size=8)
    turns = [
        {"role": "user", "content": TEXTS[0]},
        {"role": "assistant", "content": "7"},
        {"role": "user", "content": TEXTS[1]},
    ]
    whole, alone, wrong = student.answer([turns, TEXTS[1], turns[1:]])
    assert whole.question == f"User: {TEXTS[0]}\n\nAssistant: 7\n\nUser: {TEXTS[1]}"
    assert json.loads(whole.turns) == turns
    assert alone.question == TEXTS[1]
    assert "then user and assistant in turn" in str(wrong)


def test_votes_do_not_depend_on_who_else_asks(tmp_path):
    votes = {"infer": "vote_k", "num_votes": 3, "sampling_temperature": 1.0}
    student = ServedStudent.load(write_student(tmp_path / "s", **votes), "s", batch_size=8)
    together = student.answer(TEXTS[:6])
    assert together == [student.answer([text])[0] for text in TEXTS[:6]]


@pytest.fixture
def store(tmp_path):
    store = Store(str(tmp_path / "store"), tmp_path / "scratch")
    publish_version(store, "a", seed=0)
    publish_version(store, "b", seed=1)
    promote(store, "tiny", "a", "first")
    return store


def test_champion_changes_under_load_without_a_lost_or_mixed_answer(store, tmp_path):
    source = find_student("tiny", store, tmp_path)
    students = {
        f"tiny/{name}": ServedStudent.load(
            store.local(f"models/tiny/{name}"), f"tiny/{name}", batch_size=8
        )
        for name in "ab"
    }
    expected = {
        label: [reply.answer for reply in one.answer(TEXTS)] for label, one in students.items()
    }
    assert expected["tiny/a"] != expected["tiny/b"]

    async def run():
        found = []
        served = ServedStudent.load(source.folder, source.label, batch_size=8)
        async with _client(served, source=source) as client:

            async def ask_until(label):
                """Ask question after question, until this student answers."""
                number = -1
                while number < 0 or found[-1][0] != label:
                    number = (number + 1) % len(TEXTS)
                    answer = await client.post("/v1/chat/completions", json=_chat(TEXTS[number]))
                    content = answer.json()
                    text = content["choices"][0]["message"]["content"]
                    found.append((content["system_fingerprint"], number, text))

            for label, change in (
                ("tiny/a", lambda: None),
                ("tiny/b", lambda: promote(store, "tiny", "b", "better")),
                ("tiny/a", lambda: rollback(store, "tiny", "worse")),
            ):
                asking = [asyncio.create_task(ask_until(label)) for _ in range(6)]
                await asyncio.to_thread(change)
                await asyncio.wait_for(asyncio.gather(*asking), 60)
            metrics = await client.get("/metrics")
        return found, metrics.text

    found, metrics = asyncio.run(run())
    assert {label for label, _, _ in found} == {"tiny/a", "tiny/b"}
    assert all(expected[label][number] == text for label, number, text in found)
    assert f'status="200"}} {len(found)}.0' in metrics
    assert "qcrd_student_exchanges_total 2.0" in metrics


def test_champion_that_cannot_be_loaded_leaves_the_present_one(store, tmp_path):
    source = find_student("tiny", store, tmp_path)

    async def run():
        served = ServedStudent.load(source.folder, source.label, batch_size=8)
        async with _client(served, source=source) as client:
            (store.local("models/tiny/b") / "model.safetensors").write_bytes(b"damaged")
            await asyncio.to_thread(promote, store, "tiny", "b", "better")
            for _ in range(200):
                await asyncio.sleep(0.02)
                if "failed_student_exchanges_total 0.0" not in (await client.get("/metrics")).text:
                    break
            return (await client.post("/v1/chat/completions", json=_chat(TEXTS[0]))).json()

    assert asyncio.run(run())["system_fingerprint"] == "tiny/a"


@pytest.mark.parametrize(
    ("name", "label"), [("tiny", "tiny/a"), ("tiny/b", "tiny/b")], ids=["champion", "version"]
)
def test_student_is_found_by_the_name_of_a_model_or_version(store, tmp_path, name, label):
    source = find_student(name, store, tmp_path)
    assert (source.model, source.label) == ("tiny", label)
    assert (source.champion_of is store) == (name == "tiny")


@pytest.mark.parametrize("name", ["other", "tiny/c"])
def test_unknown_student_is_refused_with_those_that_exist(store, tmp_path, name):
    with pytest.raises(ConfigError, match=r"tiny|Versions of tiny: a, b"):
        find_student(name, store, tmp_path)


def test_name_without_a_store_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="got 'tiny' without --store"):
        find_student("tiny", None, tmp_path)
