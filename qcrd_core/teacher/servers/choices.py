"""The choices of a server's answer: text, thought, tokens and log-probability of each sample."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, count, pairwise, takewhile
from typing import Any

_MAX_COUNT = 2**31 - 1
_TEXT_PARTS = frozenset({"text", "output_text"})
_THOUGHT_PARTS = frozenset({"thinking", "reasoning"})


@dataclass(frozen=True)
class Completion:
    """What the teacher wrote for one prompt and seed."""

    text: str
    finish_reason: str | None
    num_prompt_tokens: int | None
    num_tokens: int | None
    """None if the server does not count tokens. If it counts only those of all samples together,
    the sample's share by its length."""
    cumulative_logprob: float | None
    """Nats; None if the server returns no log-probabilities, or one that is not a number."""
    reasoning: str | None = None
    """The thought before the text, if the server returns it apart."""


@dataclass(frozen=True)
class Refusal:
    """The server will never answer this request."""

    error: str
    """Why, one line."""


def read_choices(choices: Sequence[Any], usage: Any) -> tuple[Completion | Refusal, ...]:
    """Read the choices of an answer.

    Args:
        choices: `choices` of the answer, at least one.
        usage: `usage` of the answer, which counts the tokens of all choices together.

    Returns:
        The n-th belongs to the n-th seed. Choices after a gap are left out, and asked again.
    """
    read = [_read(choice) for choice in choices]
    logprobs = [_logprobs(choice) for choice in choices]
    usage = usage if isinstance(usage, dict) else {}
    num_prompt_tokens = _count(usage.get("prompt_tokens"))
    counts: list[int | None] = [None if found is None else len(found) for found in logprobs]
    total = _count(usage.get("completion_tokens"))
    if total is not None and (len(choices) == 1 or None in counts):
        counts = [*_shares(total, [_length(found) for found in read])]
    by_index: dict[int, Completion | Refusal] = {}
    for place, (found, choice) in enumerate(zip(read, choices, strict=True)):
        index = choice.get("index") if isinstance(choice, dict) else None
        if isinstance(found, tuple):
            text, reasoning = found
            reason = choice.get("finish_reason")
            by_index[index if isinstance(index, int) else place] = Completion(
                text=text,
                finish_reason=reason if isinstance(reason, str) else None,
                num_prompt_tokens=num_prompt_tokens,
                num_tokens=counts[place],
                cumulative_logprob=_sum(logprobs[place]),
                reasoning=reasoning,
            )
        else:
            by_index[index if isinstance(index, int) else place] = found
    return tuple(by_index[index] for index in takewhile(by_index.__contains__, count()))


def _read(choice: Any) -> tuple[str, str | None] | Refusal:
    """Text and thought of a choice, or why it has no text."""
    if not isinstance(choice, dict):
        return Refusal(f"a choice is not an object: {choice!r:.100}")
    message = choice.get("message")
    if isinstance(message, dict):
        text, thought = _parts(message.get("content"))
    else:
        message = choice
        text, thought = _parts(choice.get("text", ...))
    if text is None:
        return Refusal(f"a choice has no text: {choice!r:.200}")
    for key in ("reasoning", "reasoning_content"):
        thought = thought or _parts(message.get(key))[0] or None
    if not text.strip() and thought is None:
        for words, found in (
            ("the model refused to answer", message.get("refusal")),
            ("the server returned an error", choice.get("error")),
        ):
            if found:
                return Refusal(f"{words}: {_clean(str(found))[:200]}")
        if choice.get("finish_reason") == "content_filter":
            return Refusal("the server's content filter held the answer back")
    return text, thought


def _parts(content: Any) -> tuple[str | None, str | None]:
    """Text and thought of a content: a text, null, or a list of parts. No text if unreadable."""
    if content is None:
        return "", None
    if isinstance(content, str):
        return _clean(content), None
    if not isinstance(content, list):
        return None, None
    texts: list[str] = []
    thoughts: list[str] = []
    for part in content:
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and kind in _TEXT_PARTS | _THOUGHT_PARTS:
            inner = part.get(kind, part.get("text"))
            text = _parts(inner)[0] or ""
            (thoughts if kind in _THOUGHT_PARTS else texts).append(text)
    if not texts and not thoughts and content:
        return None, None
    return _clean("".join(texts)), _clean("".join(thoughts)) or None


def _clean(text: str) -> str:
    """Replace half a surrogate pair, which no file can hold."""
    return text.encode(errors="replace").decode()


def _logprobs(choice: Any) -> list[Any] | None:
    """Log-probability of each sampled token as the server wrote it; None if there are none."""
    found = choice.get("logprobs") if isinstance(choice, dict) else None
    if not isinstance(found, dict):
        return None
    tokens = found.get("content")
    if isinstance(tokens, list):
        try:
            return [token["logprob"] for token in tokens] or None
        except (TypeError, KeyError):
            return [None] * len(tokens)
    plain = found.get("token_logprobs")
    return (plain or None) if isinstance(plain, list) else None


def _sum(logprobs: list[Any] | None) -> float | None:
    """Their sum, in nats; None if one of them is no finite number."""
    if logprobs is None:
        return None
    try:
        total = math.fsum(logprobs)
    except (TypeError, ValueError, OverflowError):
        return None
    return total if math.isfinite(total) else None


def _count(value: Any) -> int | None:
    """A number of tokens; None if it cannot be one."""
    try:
        number = int(float(value))
    except (TypeError, ValueError, OverflowError):
        return None
    return number if 0 <= number <= _MAX_COUNT and not isinstance(value, bool) else None


def _shares(total: int, lengths: Sequence[int]) -> list[int]:
    """A count of tokens divided by the lengths of the texts; the parts add up to it."""
    ends = list(accumulate(lengths))
    return [
        total * end // ends[-1] - total * start // ends[-1] for start, end in pairwise([0, *ends])
    ]


def _length(found: tuple[str, str | None] | Refusal) -> int:
    return 1 if isinstance(found, Refusal) else len(found[0]) + len(found[1] or "") + 1
