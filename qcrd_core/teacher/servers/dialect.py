"""What a server takes of a request, learnt from the errors with which it refuses the rest.

Servers that call themselves OpenAI-compatible refuse different keys: newer hosted models
`max_tokens` and any temperature but their own, some servers `seed`, `n` or `logprobs`. A 400 or 422
that names such a key changes the dialect, and the request is sent again in it. Nothing is ever
left out that the configuration asks for by `teacher.top_k`, `teacher.min_p`,
`teacher.structured_output` or `teacher.extra_body`: a server that refuses those refuses the
request.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import orjson

from qcrd_core.teacher.servers.replies import parse_json

REFUSED = frozenset({400, 422})
"""HTTP statuses of a request that a server does not take."""

_SMALL_SEEDS = 2**31
_LEARNT = ("seed", "logprobs", "n", "stop", "temperature", "top_p", "max_tokens")
_MEANING = {
    "seed": "it gets no seed, so its samples cannot be drawn again",
    "logprobs": "it is not asked for log-probabilities",
    "n": "it is asked for one sample at a time",
    "stop": "it gets no stop texts; completions are cut here",
    "temperature": "it gets no temperature and samples at its own",
    "top_p": "it gets no top_p",
}
_RENAMED = "max_tokens is sent as max_completion_tokens"
_SMALL = "its seeds are taken modulo 2**31"
# Keys that are also words of a prompt or of any error: they count only if they stand for a key.
_WORDS = frozenset({"n", "stop", "seed", "temperature"})
_REFUSING = re.compile(
    r"unsupported|not support|not enabled|not allowed|not permitted|forbidden|unrecogni[sz]ed"
    r"|unknown|unexpected|not available|remove|cannot|deprecated|only the default|instead",
    re.IGNORECASE,
)
_TOO_LARGE = re.compile(
    r"int32|2147483647|2\*\*31|less than|at most|too (big|large)|maximum|out of range|exceed",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Complaint:
    """Why a server refused a request."""

    key: str | None
    """The key that the server names as the cause."""
    text: str


@dataclass(frozen=True)
class Dialect:
    """How requests to one server differ from the usual ones."""

    omitted: frozenset[str] = frozenset()
    is_renamed: bool = False
    """Whether the length limit is sent as `max_completion_tokens`."""
    has_small_seeds: bool = False

    def write(self, body: bytes, num_samples: int, seed: int) -> bytes:
        """Write a request.

        Args:
            body: From `TeacherClient.body`.
            num_samples: Samples to ask for.
            seed: Seed of the first sample.

        Returns:
            JSON.
        """
        # Written by hand: all servers but a few get exactly this, once per request.
        data = b'%b,"n":%d,"seed":%d}' % (body, num_samples, seed)
        if self == USUAL:
            return data
        content = {
            key: value for key, value in orjson.loads(data).items() if key not in self.omitted
        }
        if self.is_renamed:
            content["max_completion_tokens"] = content.pop("max_tokens")
        if self.has_small_seeds and "seed" in content:
            content["seed"] %= _SMALL_SEEDS
        return orjson.dumps(content)

    def after(self, content: bytes) -> "Dialect | None":
        """The dialect that a refused request teaches.

        Args:
            content: Body of an answer with a status of `REFUSED`.

        Returns:
            A dialect with one difference more; None if the error names no key that can change.
        """
        for complaint in _complaints(content):
            for key in _LEARNT:
                if key not in self.omitted and _names(complaint, key):
                    learnt = self._without(key, complaint.text)
                    if learnt is not None:
                        return learnt
        return None

    def differences(self) -> list[str]:
        """What is different, in words."""
        found = [_MEANING[key] for key in _LEARNT if key in self.omitted]
        if self.has_small_seeds and "seed" not in self.omitted:
            found.insert(0, _SMALL)
        return [_RENAMED, *found] if self.is_renamed else found

    def _without(self, key: str, text: str) -> "Dialect | None":
        if key == "max_tokens":
            # A limit that is too large for the context is named in almost the same words.
            is_about_name = "max_completion_tokens" in text and "context" not in text
            can_rename = is_about_name and not self.is_renamed and _REFUSING.search(text)
            return replace(self, is_renamed=True) if can_rename else None
        if key == "seed" and _TOO_LARGE.search(text) and not self.has_small_seeds:
            return replace(self, has_small_seeds=True)
        if key == "temperature":
            if "top_p" in text and "top_p" not in self.omitted:
                key = "top_p"  # the two exclude each other, and the temperature was chosen
            elif not _REFUSING.search(text):
                return None  # a value out of range, which the user must correct
        return replace(self, omitted=self.omitted | {key})


USUAL = Dialect()
"""What a server gets until it refuses something."""


def _names(complaint: Complaint, key: str) -> bool:
    if complaint.key is not None:
        return complaint.key == key
    quoted = rf"['\"`](\w+\.)*{key}['\"`]"
    alone = rf"\b{key}\b"
    if key in _WORDS:
        alone = rf"\b{key} (must|is|should|does|cannot|parameter)\b|parameter:? {key}\b"
    return re.search(f"{quoted}|{alone}", complaint.text, re.IGNORECASE) is not None


def _complaints(content: bytes) -> Iterator[Complaint]:
    """Complaints in an answer: an error object of OpenAI's form, or FastAPI's list of details."""
    try:
        answer = parse_json(content)
    except (ValueError, RecursionError):
        return
    if isinstance(answer, list) and answer:
        answer = answer[0]  # as Google's servers wrap it
    if not isinstance(answer, dict):
        return
    details = answer.get("detail")
    for detail in details if isinstance(details, list) else [details]:
        if isinstance(detail, dict):
            place = detail.get("loc")
            yield _complaint(
                place[-1] if isinstance(place, list) and place else None, detail.get("msg")
            )
        elif isinstance(detail, str):
            yield Complaint(None, detail)
    error = answer.get("error", answer)
    if isinstance(error, dict):
        yield _complaint(error.get("param"), error.get("message"))
    elif isinstance(error, str):
        yield Complaint(None, error)


def _complaint(key: Any, text: Any) -> Complaint:
    name = key.rpartition(".")[2] if isinstance(key, str) and key else None
    return Complaint(name, text if isinstance(text, str) else "")
