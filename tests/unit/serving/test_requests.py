"""Which requests are read, and which are refused with which error object."""

import json

import pytest

from qcrd_core.serving.requests import RequestError, read_request

_ASK = [{"role": "user", "content": "How many?"}]


def _read(kind="chat.completion", **content):
    return read_request(json.dumps({"model": "m", **content}).encode(), kind, "m")


def test_chat_of_the_official_client_is_read():
    body = {"temperature": 0, "max_tokens": 50, "n": 1, "stop": None, "user": "u", "tools": []}
    assert _read(messages=_ASK, **body).contents == ("How many?",)
    parts = [{"type": "text", "text": "How "}, {"type": "text", "text": "many?"}]
    assert _read(messages=[{"role": "user", "content": parts}]).contents == ("How many?",)


def test_conversation_is_read_for_a_student_that_was_trained_on_such():
    turns = [{"role": "system", "content": "Be brief."}, *_ASK]
    body = json.dumps({"model": "m", "messages": turns}).encode()
    assert read_request(body, "chat.completion", "m", takes_turns=True).contents == (turns,)
    for wrong in ([], [7], [*turns, {"role": "assistant", "content": "7"}], "How many?"):
        body = json.dumps({"model": "m", "messages": wrong}).encode()
        with pytest.raises(RequestError, match="the last of them the user's"):
            read_request(body, "chat.completion", "m", takes_turns=True)


def test_completions_take_one_prompt_or_several():
    assert _read("text_completion", prompt="a?").contents == ("a?",)
    assert _read("text_completion", prompt=["a?", "b?"]).contents == ("a?", "b?")


def test_stream_is_read_with_its_options():
    asked = _read(messages=_ASK, stream=True, stream_options={"include_usage": True})
    assert (asked.is_stream, asked.has_stream_usage) == (True, True)
    assert not _read(messages=_ASK).is_stream


@pytest.mark.parametrize(
    ("content", "param"),
    [
        ({}, "messages"),
        ({"messages": "How many?"}, "messages"),
        ({"messages": [{"role": "system", "content": "Be brief."}, *_ASK]}, "messages"),
        ({"messages": [{"role": "assistant", "content": "7"}]}, "messages"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 7}]}]}, "messages"),
        ({"messages": [7]}, "messages"),
        ({"messages": _ASK, "n": 2}, "n"),
        ({"messages": _ASK, "n": True}, "n"),
        ({"messages": _ASK, "stop": ["."]}, "stop"),
        ({"messages": _ASK, "tools": [{}]}, "tools"),
        ({"messages": _ASK, "logprobs": True}, "logprobs"),
        ({"messages": _ASK, "response_format": {"type": "json_object"}}, "response_format"),
        ({"messages": _ASK, "stream": "yes"}, "stream"),
        ({"messages": _ASK, "stream": []}, "stream"),
        ({"messages": _ASK, "surprise": 1}, "surprise"),
        ({"messages": _ASK, "model": 7}, "model"),
    ],
)
def test_request_for_what_a_student_does_not_do_is_refused(content, param):
    with pytest.raises(RequestError, match=r"\w") as error:
        _read(**content)
    found = error.value.content["error"]
    assert (error.value.status, found["type"], found["param"]) == (
        400,
        "invalid_request_error",
        param,
    )


@pytest.mark.parametrize("prompt", [[], [1, 2, 3], ["a?"] * 257, None, {"a": 1}])
def test_prompts_that_are_no_texts_are_refused(prompt):
    with pytest.raises(RequestError, match=r"prompt|question"):
        _read("text_completion", prompt=prompt)


def test_other_model_is_not_found():
    with pytest.raises(RequestError, match="this server has 'm'") as error:
        _read(messages=_ASK, model="gpt-4o")
    assert error.value.status == 404
    assert error.value.content["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"7", b"\xff", b"[" * 5000])
def test_body_that_is_no_json_object_is_refused(body):
    with pytest.raises(RequestError, match="The body of a request must be") as error:
        read_request(body, "chat.completion", "m")
    assert error.value.status == 400
