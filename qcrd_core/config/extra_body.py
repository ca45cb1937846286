"""Keys of a request that `teacher.extra_body` must leave alone, and what to do instead."""

from pydantic import JsonValue

_SET_BY_QCRD = {
    **dict.fromkeys(("model", "messages", "prompt", "n", "stream"), "leave it out"),
    **dict.fromkeys(("max_tokens", "max_completion_tokens"), "set teacher.max_new_tokens"),
    **{name: f"set teacher.{name}" for name in ("seed", "stop", "top_k", "min_p")},
    "temperature": "set teacher.sampling_temperature",
    "logprobs": "it is left out by itself if a server refuses it",
    "top_p": "it is always 1, because the vote needs the whole distribution",
}


def check_extra_body(setting: str, body: dict[str, JsonValue]) -> None:
    """Refuse keys that qcrd writes itself.

    Args:
        setting: Name of the setting, for the error.
        body: Its value.

    Raises:
        ValueError: If it holds such a key; says what to set instead.
    """
    known = sorted(body.keys() & _SET_BY_QCRD.keys())
    if known:
        remedy = _SET_BY_QCRD[known[0]]
        msg = f"{setting} must not hold {known[0]}, which qcrd writes itself; {remedy}"
        raise ValueError(msg)
