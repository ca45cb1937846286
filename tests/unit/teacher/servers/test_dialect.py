"""Errors of servers, as they word them, and what a request leaves out afterwards."""

import json

import pytest

from qcrd_core.teacher.servers.dialect import USUAL, Dialect

BODY = b'{"model":"m","temperature":0.7,"top_p":1.0,"max_tokens":16,"stop":["\\n"],"logprobs":true'


def _error(message, **more):
    return json.dumps({"error": {"message": message, **more}}).encode()


def _detail(key, message):
    return json.dumps({"detail": [{"loc": ["body", key], "msg": message, "input": "n"}]}).encode()


@pytest.mark.parametrize(
    ("content", "learnt"),
    [
        (
            _error(
                "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
                "'max_completion_tokens' instead.",
                param="max_tokens",
            ),
            Dialect(is_renamed=True),
        ),
        (
            _error(
                "Unsupported value: 'temperature' does not support 0.7 with this model. Only the "
                "default (1) value is supported.",
                param="temperature",
            ),
            Dialect(frozenset({"temperature"})),
        ),
        (
            _error("`temperature` and `top_p` cannot both be specified for this model."),
            Dialect(frozenset({"top_p"})),
        ),
        (_error("Unsupported parameter: 'seed'", param="seed"), Dialect(frozenset({"seed"}))),
        (_error("seed must fit int32"), Dialect(has_small_seeds=True)),
        (
            _detail("seed", "Input should be less than or equal to 2147483647"),
            Dialect(has_small_seeds=True),
        ),
        (
            b"[" + _error("Invalid value at 'generation_config.seed' (TYPE_INT32), 77") + b"]",
            Dialect(has_small_seeds=True),
        ),
        (
            _error("Logprobs is not enabled for models/some-model", status="INVALID_ARGUMENT"),
            Dialect(frozenset({"logprobs"})),
        ),
        (
            _error("Please remove 'logprobs'/'top_logprobs' from your request.", param=None),
            Dialect(frozenset({"logprobs"})),
        ),
        (_error("'n' : number must be at most 1"), Dialect(frozenset({"n"}))),
        (_detail("n", "Extra inputs are not permitted"), Dialect(frozenset({"n"}))),
        (
            _error("'stop' is not supported with this model.", param="stop"),
            Dialect(frozenset({"stop"})),
        ),
        (b'{"message": "unknown field `seed`"}', Dialect(frozenset({"seed"}))),
        (b'{"detail": "logprobs are not supported"}', Dialect(frozenset({"logprobs"}))),
    ],
)
def test_error_that_names_a_key_teaches_a_dialect(content, learnt):
    assert USUAL.after(content) == learnt


@pytest.mark.parametrize(
    "content",
    [
        _error("This model's maximum context length is 10 tokens.", param="messages"),
        _error(
            "'max_tokens' or 'max_completion_tokens' is too large: 5000. This model's maximum "
            "context length is 2048 tokens and your request cannot exceed it."
        ),
        # A word of the prompt is no key.
        _error("The prompt 'at which temperature did the seed stop growing' is not allowed."),
        # The user chose a temperature that does not exist.
        _error("temperature must be at most 2", param="temperature"),
        # Somebody else's key.
        _error("Unsupported parameter: 'top_k', beside seed", param="top_k"),
        b"the prompt is refused",
        b'"n"',
        b"[]",
        b"",
    ],
)
def test_any_other_error_teaches_nothing(content):
    assert USUAL.after(content) is None


def test_dialect_learns_one_thing_after_the_other_and_never_the_same():
    small = USUAL.after(_error("seed must fit int32"))
    without = small.after(_error("seed must fit int32"))
    assert (small.has_small_seeds, without.omitted) == (True, {"seed"})
    assert without.after(_error("seed must fit int32")) is None
    assert without.differences() == ["it gets no seed, so its samples cannot be drawn again"]


def test_request_is_written_in_the_dialect():
    usual = json.loads(USUAL.write(BODY, 2, 2**40 + 5))
    assert (usual["n"], usual["seed"], usual["max_tokens"]) == (2, 2**40 + 5, 16)

    dialect = Dialect(frozenset({"n", "logprobs"}), is_renamed=True, has_small_seeds=True)
    assert json.loads(dialect.write(BODY, 2, 2**40 + 5)) == {
        "model": "m",
        "temperature": 0.7,
        "top_p": 1.0,
        "stop": ["\n"],
        "seed": 5,
        "max_completion_tokens": 16,
    }
