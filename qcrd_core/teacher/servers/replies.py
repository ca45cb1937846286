"""What a server's answer means: completions, a refusal, or no answer at all.

- 200 with choices: one `Completion` per sample; a choice without a text is a `Refusal`.
- 200 with an error object or without choices: a `Refusal`, unless the error's code is one of those
  below.
- Transport error, 408, 409, 425, 429, 5xx, 401, 403, 404: `Unavailable`. The server has not
  answered, or not yet.
- 402 and other words for "no more money": `Unavailable`, for this key.
- Any other status: a `Refusal`, which becomes a failed row and is not tried again.

What is beside the text never costs the text: a token count or a log-probability that cannot be read
is None.
"""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from qcrd_core.teacher.servers.choices import Completion, Refusal, read_choices

_BUSY = frozenset({425, 429, 503, 529})
_HOPELESS = frozenset({401, 403, 404})
_RETRIED = _BUSY | {408, 409}
_OK, _UNPAID = 200, 402
_MAY_BE_UNPAID = frozenset({400, 403, 429})
_NO_MONEY = re.compile(
    r"insufficient[ _](quota|credits?|balance|funds)|exceeded your current quota"
    r"|credit balance is too low|billing_hard_limit|payment required",
    re.IGNORECASE,
)
_LONGEST_WAIT_SECONDS = 300.0
_MAX_ERROR_CHARS = 300
_MAX_SHOWN = 100


@dataclass(frozen=True)
class Unavailable:
    """The server did not answer this request; another server may."""

    reason: str
    """Why, one line."""
    is_busy: bool = False
    """Whether the server is alive but overloaded."""
    is_absent: bool = False
    """Whether the server accepts no connections."""
    is_hopeless: bool = False
    """Whether it will refuse every other request too: wrong key, address or model."""
    is_unpaid: bool = False
    """Whether the account of its key has no money left."""
    retry_after_seconds: float = 0.0


Reply = tuple[Completion | Refusal, ...] | Refusal | Unavailable
"""One entry per sample in the order of their seeds, at least one; or why there is none."""


def read_reply(
    status: int, content: bytes, *, content_type: str = "", retry_after: str | None = None
) -> Reply:
    """Read a server's answer.

    Args:
        status: HTTP status.
        content: The body.
        content_type: The header, for the error about a body that is not JSON.
        retry_after: The header Retry-After: seconds or a date.

    Returns:
        Completions, or why there is none.
    """
    if status != _OK:
        return _by_status(status, f"HTTP {status}: {_shown(content)}", content, retry_after)
    try:
        answer = parse_json(content)
    except (ValueError, RecursionError):
        is_stream = "event-stream" in content_type or content.lstrip().startswith(b"data:")
        return Unavailable(
            _not_json(content, content_type, is_stream=is_stream), is_hopeless=is_stream
        )
    if not isinstance(answer, dict):
        return Unavailable(f"HTTP 200 with JSON that is not an object: {_shown(content)}")
    choices, error = answer.get("choices"), answer.get("error")
    if isinstance(choices, list) and choices:
        return read_choices(choices, answer.get("usage"))
    if error:
        code = error.get("code") if isinstance(error, dict) else None
        reason = f"HTTP 200 with an error: {one_line(_message(error))}"
        return _by_status(_as_status(code), reason, content, retry_after)
    return Refusal(f"HTTP 200 without any choice: {_shown(content)}")


def parse_json(content: bytes) -> Any:
    """Parse JSON, also with NaN, a byte-order mark or broken characters, as some servers write it.

    Raises:
        ValueError: If it is not JSON even so.
        RecursionError: If it is nested too deeply.
    """
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return json.loads(content.decode("utf-8-sig", errors="replace"))


def one_line(text: str) -> str:
    """A text in one line of at most 300 characters."""
    return " ".join(text.split())[:_MAX_ERROR_CHARS]


def _by_status(
    status: int, reason: str, content: bytes, retry_after: str | None
) -> Refusal | Unavailable:
    words = content.decode(errors="replace")
    if status == _UNPAID or (status in _MAY_BE_UNPAID and _NO_MONEY.search(words)):
        return Unavailable(reason, is_unpaid=True)
    if status in _HOPELESS:
        return Unavailable(reason, is_hopeless=True)
    if status in _RETRIED or status >= 500:
        seconds = _seconds(retry_after)
        return Unavailable(reason, is_busy=status in _BUSY, retry_after_seconds=seconds)
    return Refusal(reason)


def _as_status(code: Any) -> int:
    """The HTTP status that an error object of a 200 names; 400 if it names none."""
    # An error within a 200 came from behind the server: it is about this request, not its key.
    is_status = isinstance(code, int) and 400 <= code < 600 and code not in _HOPELESS
    return code if is_status else 400


def _message(error: Any) -> str:
    message = error.get("message") if isinstance(error, dict) else error
    return message if isinstance(message, str) else json.dumps(error, ensure_ascii=False)


def _not_json(content: bytes, content_type: str, *, is_stream: bool) -> str:
    kind = "an event stream, although none was asked for" if is_stream else "no JSON"
    if "html" in content_type or content.lstrip().startswith(b"<"):
        kind = "a web page, perhaps of a login or because teacher.endpoints names another URL"
    shown = _shown(content)[:_MAX_SHOWN]
    return f"HTTP 200 with {kind} ({content_type or 'no content type'}): {shown}"


def _shown(content: bytes) -> str:
    return one_line(content.decode(errors="replace"))


def _seconds(retry_after: str | None) -> float:
    text = (retry_after or "").strip()
    try:
        seconds = float(text or 0)
    except ValueError:
        try:
            until = parsedate_to_datetime(text)
        except ValueError:
            return 0.0
        # A date without a zone is in UTC, by RFC 9110.
        until = until if until.tzinfo else until.replace(tzinfo=UTC)
        seconds = (until - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), _LONGEST_WAIT_SECONDS) if seconds == seconds else 0.0
