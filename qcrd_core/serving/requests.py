"""What a request to the OpenAI-compatible API asks, or why it is refused.

A student answers one question by its own kind of inference. Keys that ask for something else
(several choices, tools, a stop text) are refused instead of ignored; keys that steer the sampling
of a language model are accepted, because every client sends them, and have no effect.
"""

from dataclasses import dataclass
from typing import Any, Literal

import orjson

Kind = Literal["chat.completion", "text_completion"]

MAX_PROMPTS = 256
"""Most prompts in one request to the completions API."""
_WITHOUT_EFFECT = frozenset(
    {
        *("temperature", "top_p", "top_k", "min_p", "seed", "presence_penalty"),
        *("frequency_penalty", "max_tokens", "max_completion_tokens", "user", "metadata", "store"),
        *("service_tier", "safety_identifier", "prompt_cache_key", "reasoning_effort"),
    }
)
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "logprobs": (False,),
    "stop": ([], ""),
    "suffix": ("",),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "logit_bias": ({},),
}
"""Keys of which only these values, or null, ask for what a student does."""


class RequestError(Exception):
    """A request is refused. It has the fields of an OpenAI error object."""

    def __init__(
        self, status: int, message: str, *, code: str | None = None, param: str | None = None
    ) -> None:
        """Describe the refusal; `status` is that of HTTP."""
        super().__init__(message)
        self.status, self.code, self.param = status, code, param

    @property
    def content(self) -> dict[str, Any]:
        """The error object."""
        kinds = {401: "authentication_error", 429: "rate_limit_error"}
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        error = {
            "message": str(self),
            "type": kinds.get(self.status, kind),
            "param": self.param,
            "code": self.code,
        }
        return {"error": error}


Content = str | list[dict[str, Any]]
"""A question as a text, or the turns of a conversation."""


@dataclass(frozen=True)
class Asked:
    """What a request asks."""

    kind: Kind
    contents: tuple[Content, ...]
    """Questions: one in a chat, any number of prompts otherwise."""
    is_stream: bool
    has_stream_usage: bool
    """Whether a stream ends with the token counts."""


def read_object(body: bytes) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        body: Body of a request.

    Returns:
        The object.

    Raises:
        RequestError: If it is none.
    """
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        msg = f"The body of a request must be JSON; got {error}."
        raise RequestError(400, msg) from error
    if not isinstance(request, dict):
        msg = "The body of a request must be a JSON object."
        raise RequestError(400, msg)
    return request


def read_request(body: bytes, kind: Kind, model: str, *, takes_turns: bool = False) -> Asked:
    """Read the body of a request.

    Args:
        body: JSON.
        kind: Which of the two APIs is asked.
        model: The name under which the student is served.
        takes_turns: Whether the student was trained on conversations.

    Returns:
        The questions.

    Raises:
        RequestError: If the body breaks a rule or asks for something that a student does not do.
    """
    request = read_object(body)
    _check_model(request.pop("model", None), model)
    key = "messages" if kind == "chat.completion" else "prompt"
    asked = request.pop(key, None)
    contents: tuple[Content, ...]
    if kind == "text_completion":
        contents = _prompts(asked)
    else:
        contents = (_turns(asked) if takes_turns else _question(asked),)
    is_stream, options = request.pop("stream", None), request.pop("stream_options", None)
    if is_stream is not None and not isinstance(is_stream, bool):
        _refuse("stream must be true or false.", "stream")
    for name, value in request.items():
        _check_key(name, value)
    has_usage = isinstance(options, dict) and options.get("include_usage") is True
    return Asked(kind, contents, bool(is_stream), has_usage)


def _check_model(named: Any, model: str) -> None:
    if not isinstance(named, str):
        _refuse(f"model must name a model; this server has {model!r}.", "model")
    if named != model:
        msg = f"The model {named!r:.200} does not exist; this server has {model!r}."
        raise RequestError(404, msg, code="model_not_found", param="model")


def _check_key(name: str, value: Any) -> None:
    if value is None or name in _WITHOUT_EFFECT:
        return
    # 1 == True in Python, but `logprobs: 1` is not `logprobs: true`.
    if any(value == one and type(value) is type(one) for one in _NEUTRAL.get(name, ())):
        return
    _refuse(f"A student does not support {name} = {_shown(value)}. Leave it out.", name)


def _turns(messages: Any) -> list[dict[str, Any]]:
    """The turns of a conversation; which roles may follow each other, the data set knows."""
    are_turns = isinstance(messages, list) and all(isinstance(turn, dict) for turn in messages)
    if not are_turns or not messages or messages[-1].get("role") != "user":
        _refuse("messages must be a list of turns, the last of them the user's.", "messages")
    return list(messages)


def _question(messages: Any) -> str:
    if not isinstance(messages, list) or not messages:
        _refuse("messages must be a list with one message of the user.", "messages")
    if len(messages) > 1 or not isinstance(messages[0], dict) or messages[0].get("role") != "user":
        msg = (
            "A student answers single questions, and its prompt is that of its training: messages "
            "must hold one message of the role user and no other. Leave out the others."
        )
        _refuse(msg, "messages")
    content = messages[0].get("content")
    if isinstance(content, list):
        is_whole = all(isinstance(part, dict) and part.get("type") == "text" for part in content)
        texts: list[Any] = [part.get("text") for part in content] if is_whole else [None]
        content = "".join(texts) if all(map(_is_text, texts)) else None
    return _text(content, "messages")


def _prompts(prompt: Any) -> tuple[str, ...]:
    prompts = prompt if isinstance(prompt, list) else [prompt]
    if not 1 <= len(prompts) <= MAX_PROMPTS:
        _refuse(f"prompt must hold 1 to {MAX_PROMPTS} texts; got {len(prompts)}.", "prompt")
    return tuple(_text(one, "prompt") for one in prompts)


def _text(value: Any, param: str) -> str:
    if not _is_text(value) or not value.strip():
        _refuse(f"The question in {param} must be a text that is not empty.", param)
    return str(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _refuse(message: str, param: str) -> None:
    raise RequestError(400, message, param=param)


def _shown(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= 60 else f"{text[:60]}..."
