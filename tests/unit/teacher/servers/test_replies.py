"""What servers answer, in every form that was seen, and what it is taken for."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from qcrd_core.teacher.servers.choices import Completion, Refusal
from qcrd_core.teacher.servers.replies import Unavailable, read_reply

TEXT = "I think of 7. The answer is 7."


def _reply(content, status=200, **headers):
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return read_reply(status, data, **headers)


def _answer(*messages, usage=None, **choice):
    choices = [{"index": k, "message": message, **choice} for k, message in enumerate(messages)]
    return {"choices": choices, "usage": usage}


@pytest.mark.parametrize(
    ("message", "text", "reasoning"),
    [
        ({"content": TEXT}, TEXT, None),
        ({"content": TEXT, "reasoning": "So 7."}, TEXT, "So 7."),
        ({"content": TEXT, "reasoning_content": "So 7."}, TEXT, "So 7."),
        ({"content": TEXT, "reasoning": None, "reasoning_content": "So 7."}, TEXT, "So 7."),
        ({"content": None, "reasoning": "So 7."}, "", "So 7."),
        ({"content": None}, "", None),
        ({"content": [{"type": "text", "text": "I think of 7. "}, "The answer is 7."]}, TEXT, None),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "So 7."}]},
                    {"type": "text", "text": TEXT},
                ]
            },
            TEXT,
            "So 7.",
        ),
        ({"content": [{"type": "reasoning", "text": "So 7."}, {"text": TEXT}]}, TEXT, "So 7."),
        ({"content": "half \ud83d pair"}, "half ? pair", None),
    ],
)
def test_message_gives_text_and_thought(message, text, reasoning):
    (found,) = _reply(_answer(message))
    assert (found.text, found.reasoning) == (text, reasoning)


def test_completions_api_gives_text_and_thought():
    (found,) = _reply({"choices": [{"text": TEXT, "reasoning": "So 7."}]})
    assert (found.text, found.reasoning) == (TEXT, "So 7.")


@pytest.mark.parametrize(
    ("choice", "error"),
    [
        (
            {"message": {"content": None, "refusal": "I cannot."}},
            "the model refused to answer: I cannot.",
        ),
        (
            {"message": {"content": ""}, "error": {"code": 502}},
            "the server returned an error: {'code': 502}",
        ),
        ({"message": {"content": None}, "finish_reason": "content_filter"}, "the server's content"),
        ({"message": {"content": 7}}, "a choice has no text"),
        ({"delta": {"content": "I"}}, "a choice has no text"),
        ("I think", "a choice is not an object"),
    ],
)
def test_choice_without_a_text_is_one_refused_sample(choice, error):
    first = {"message": {"content": TEXT}}
    found = _reply({"choices": [first, choice]})
    assert isinstance(found[0], Completion)
    assert found[1].error.startswith(error)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ({"error": {"message": "flagged", "code": 403}}, "HTTP 200 with an error: flagged"),
        ({"error": "flagged"}, "HTTP 200 with an error: flagged"),
        ({"choices": []}, 'HTTP 200 without any choice: {"choices": []}'),
        ({"choices": None, "id": "x"}, "HTTP 200 without any choice"),
    ],
)
def test_error_in_a_200_is_a_refusal_with_the_servers_words(content, error):
    found = _reply(content)
    assert isinstance(found, Refusal)
    assert found.error.startswith(error)


@pytest.mark.parametrize(
    ("content", "status", "names"),
    [
        ({"error": {"message": "overloaded", "code": 502}}, 200, ()),
        ({"error": {"message": "slow down", "code": 429}}, 200, ("is_busy",)),
        ({"error": {"message": "Insufficient credits", "code": 402}}, 200, ("is_unpaid",)),
        ({}, 402, ("is_unpaid",)),
        ({"error": {"code": "insufficient_quota"}}, 429, ("is_unpaid",)),
        ({"error": {"message": "Your credit balance is too low"}}, 400, ("is_unpaid",)),
        ({"error": "try again"}, 409, ()),
        ({}, 408, ()),
        ({}, 500, ()),
        ({}, 503, ("is_busy",)),
        ({}, 529, ("is_busy",)),
        ({}, 401, ("is_hopeless",)),
        ({}, 404, ("is_hopeless",)),
        (b"data: {}\n\n", 200, ("is_hopeless",)),
    ],
)
def test_status_that_may_pass_is_no_refusal(content, status, names):
    found = _reply(content, status)
    assert isinstance(found, Unavailable)
    flags = ("is_busy", "is_absent", "is_hopeless", "is_unpaid")
    assert tuple(name for name in flags if getattr(found, name)) == names


@pytest.mark.parametrize("status", [400, 413, 422])
def test_any_other_status_is_a_refusal(status):
    assert _reply({"error": "no"}, status) == Refusal(f'HTTP {status}: {{"error": "no"}}')


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        (b"<!DOCTYPE html><html>Sign in</html>", "text/html", "a web page"),
        (b"data: {}\n\ndata: [DONE]", "text/event-stream", "an event stream"),
        (b'{"choices": [{"te', "application/json", "no JSON (application/json)"),
        (b"", "", "no JSON (no content type)"),
        (b"[1]", "application/json", "JSON that is not an object: [1]"),
    ],
)
def test_body_that_is_no_answer_is_named(content, kind, words):
    found = _reply(content, content_type=kind)
    assert isinstance(found, Unavailable)
    assert words in found.reason


def test_json_with_a_mark_broken_characters_and_nan_is_read():
    data = json.dumps({"metrics": float("nan"), **_answer({"content": "I X think"})}).encode()
    data = b"\xef\xbb\xbf" + data.replace(b"X", b"\xf0\x9f")
    (found,) = _reply(data)
    assert found.text == "I \ufffd think"


@pytest.mark.parametrize(
    ("retry_after", "least", "most"),
    [
        (None, 0, 0),
        ("7", 7, 7),
        ("0.5", 0.5, 0.5),
        ("-3", 0, 0),
        ("nan", 0, 0),
        ("soon", 0, 0),
        ("99999", 300, 300),
        (timedelta(seconds=200), 100, 200),
        (timedelta(days=-1), 0, 0),
    ],
)
def test_retry_after_is_seconds_or_a_date(retry_after, least, most):
    if isinstance(retry_after, timedelta):
        retry_after = format_datetime(datetime.now(UTC) + retry_after, usegmt=True)
    assert least <= _reply({}, 429, retry_after=retry_after).retry_after_seconds <= most


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 7, "completion_tokens": 9}, (7, 9)),
        ({"prompt_tokens": 7.0, "completion_tokens": "9"}, (7, 9)),
        ({"prompt_tokens": None, "completion_tokens": -1}, (None, None)),
        ({"prompt_tokens": float("inf"), "completion_tokens": [9]}, (None, None)),
        ({"prompt_tokens": True, "completion_tokens": 10**12}, (None, None)),
        ("9", (None, None)),
        (None, (None, None)),
    ],
)
def test_usage_that_cannot_be_read_costs_no_text(usage, tokens):
    (found,) = _reply(_answer({"content": TEXT}, usage=usage))
    assert (found.text, found.num_prompt_tokens, found.num_tokens) == (TEXT, *tokens)


@pytest.mark.parametrize(
    ("logprobs", "total", "num_tokens"),
    [
        ({"content": [{"logprob": -0.5}, {"logprob": -1}]}, -1.5, 2),
        ({"token_logprobs": [-0.5, -1.0]}, -1.5, 2),
        ({"content": [{"logprob": float("-inf")}, {"logprob": -1.0}]}, None, 2),
        ({"content": [{"logprob": None}, {"token": "y"}]}, None, 2),
        ({"content": ["y"]}, None, 1),
        ([-0.5, -0.1], None, None),
        ({"content": []}, None, None),
        ({}, None, None),
        ("none", None, None),
    ],
)
def test_log_probability_that_cannot_be_read_costs_no_text(logprobs, total, num_tokens):
    (found,) = _reply(_answer({"content": TEXT}, logprobs=logprobs))
    assert (found.text, found.cumulative_logprob, found.num_tokens) == (TEXT, total, num_tokens)


def test_usage_of_several_choices_is_shared_by_length():
    messages = [
        {"content": "a" * 9},
        {"content": "b" * 29},
        {"content": None, "reasoning": "c" * 59},
    ]
    found = _reply(_answer(*messages, usage={"prompt_tokens": 7, "completion_tokens": 20}))
    # 10, 30 and 60 of 100 characters, an end counted as one.
    assert [each.num_tokens for each in found] == [2, 6, 12]
    assert [each.num_prompt_tokens for each in found] == [7, 7, 7]


def test_choices_without_an_index_are_in_order():
    found = _reply({"choices": [{"text": "a"}, {"text": "b", "index": None}]})
    assert [each.text for each in found] == ["a", "b"]
