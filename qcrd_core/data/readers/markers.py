r"""Where a completion says its answer, and where its reasoning ends.

The data set's marker comes first. Without it, the marks that models write by themselves count:
`\boxed{...}`, `####`, `Answer:`, `the final answer is`.
"""

import functools
import re
from dataclasses import dataclass

from qcrd_core.data.readers.texts import first_sentence

# It begins with one set of characters, so that a search skips all others at once.
_USUAL = re.compile(
    r"[aA\\#](?:(?<=\\)f?boxed\s?\{|(?<=#)###|(?<=[aA])(?i:nswer(?:\schoice)?(?:\*\*)?\s?"
    r"(?:is\b\s?:?(?!\s?(?:in)?(?:correct|right|wrong|true)\b)|:|="
    r"|(?:would|should|must)\sbe\b\s?:?)))"
)
_USUAL_LEAD = re.compile(
    r"(?:\bthe\s)?(?:\b(?:final|correct|right|best|overall|my)\s)?$", re.IGNORECASE
)
_HYPOTHETICAL = re.compile(
    r"\b(?:whether|if|suppose|assume|assuming|maybe|perhaps|unless|that)\s$", re.IGNORECASE
)
_CORRECTION = re.compile(
    r"[.!?\n](?i:\s*+(?:but\s)?(?:wait|hold on|correction|sorry|oops|hmm|no(?=,)|actually|"
    r"I made an? (?:mistake|error)|(?:that|this) (?:is|was) (?:wrong|incorrect|not right))\b)"
)
# What introduces the answer, and nothing else: "... 12 apples. So the answer is" leaves no "So".
_DANGLING = re.compile(
    r"(?:(?<![\w'])(?:and|so|therefore|thus|hence|then|finally|consequently|accordingly"
    r"|in conclusion|in summary|overall|as a result|we (?:can )?(?:conclude|see|know) that"
    r"|this means(?: that)?|which means(?: that)?)(?![\w'])|[\s,:;]|(?<!\S)[*#_$>\[(-]+)++$",
    re.IGNORECASE,
)
_LIST = re.compile(r"\s*\n\s*(?:[-–•*]\s|[0-9]{1,2}[.)]\s)")  # noqa: RUF001
_ENDS = frozenset(".!?")  # after one of these nothing dangles
_LONGEST_LEAD = 120
_SHORT_WORDS = 6
_SHORT_END = 3


@dataclass(frozen=True, slots=True)
class Tail:
    """A place where a text says its answer."""

    start: int
    """Offset of the marker."""
    text: str
    """What follows it, up to the next marker, or the content of a box."""
    is_box: bool = False


@functools.lru_cache(maxsize=64)
def _marker_pattern(marker: str) -> re.Pattern[str]:
    return re.compile(r"\s+".join(re.escape(word) for word in marker.split()))


def _marker_spans(text: str, marker: str) -> list[tuple[int, int]]:
    """Where the data set's marker is, in any case and with any spaces."""
    # Folding first lets the search look for a fixed text, which is several times as fast.
    lowered = text.lower()
    if len(lowered) == len(text):
        found = _marker_pattern(marker.lower()).finditer(lowered)
    else:
        found = re.compile(_marker_pattern(marker).pattern, re.IGNORECASE).finditer(text)
    return [match.span() for match in found]


def marked_tails(text: str, marker: str | None) -> list[Tail]:
    """What follows each of the data set's markers.

    Args:
        text: A completion.
        marker: The data set's marker; None if it has none.

    Returns:
        In the order of the text. A marker that only supposes ("whether the answer is 10") is left
        out if another one follows.
    """
    if marker is None:
        return []
    spans = _marker_spans(text, marker)
    stated = [
        span for span in spans if not _HYPOTHETICAL.search(text[max(0, span[0] - 12) : span[0]])
    ]
    return _between(text, stated or spans)


def usual_tail(text: str) -> Tail | None:
    """What follows the last of the usual marks in a text without the data set's marker.

    Args:
        text: A completion.

    Returns:
        None if there is none. `Answer:` before a long sentence, or many of them, introduces the
        reasoning, so it is none.
    """
    if "nswer" not in text and "boxed" not in text and "####" not in text and "NSWER" not in text:
        return None
    found = [(_lead(text, match.start()), match.end()) for match in _USUAL.finditer(text)]
    for index in reversed(range(len(found))):
        start, end = found[index]
        if _HYPOTHETICAL.search(text[max(0, start - 12) : start]):
            continue
        if text[end - 1] == "{":
            introduced = found[index - 1] if index else (0, 0)
            is_alone = not index or bool(text[introduced[1] : start].strip(" \n$*:\\[("))
            return Tail(start if is_alone else introduced[0], _box(text, end), is_box=is_alone)
        if not _introduces(text, end):
            return Tail(start, text[end:])
    return None


def correction(tail: str, stated: str) -> int | None:
    """Where a text takes back what it stated after its marker; None if it does not."""
    match = _CORRECTION.search(tail, tail.find(stated) + len(stated))
    return None if match is None else match.end()


def before(text: str, start: int) -> str | None:
    """The reasoning before a marker, without what only introduces it; None if it is empty."""
    head = text[:start].strip()
    if head[-1:] in _ENDS:
        return head or None
    lead = _DANGLING.search(head, max(0, len(head) - _LONGEST_LEAD))
    return (head[: lead.start()] if lead else head).rstrip() or None


def _between(text: str, spans: list[tuple[int, int]]) -> list[Tail]:
    stops = [*(start for start, _ in spans[1:]), len(text)][: len(spans)]
    return [Tail(start, text[end:stop]) for (start, end), stop in zip(spans, stops, strict=True)]


def _lead(text: str, start: int) -> int:
    """Where "the final answer is" begins."""
    lead = _USUAL_LEAD.search(text, max(0, start - 16), start)
    return start if lead is None else lead.start()


def _introduces(text: str, end: int) -> bool:
    """Whether what ends here is an `Answer:` before reasoning rather than before an answer."""
    said = first_sentence(text[end:])
    is_last = text.endswith(said) or len(text) - text.find(said, end) - len(said) <= _SHORT_END
    is_long = said.count(" ") >= _SHORT_WORDS or _LIST.match(text, end) is not None
    return text[end - 1] in ":=" and not is_last and is_long


def _box(text: str, start: int) -> str:
    """The content of a box, up to the brace that closes it."""
    depth = 1
    for match in re.compile(r"[{}]").finditer(text, start):
        depth += 1 if match.group() == "{" else -1
        if depth == 0:
            return text[start : match.start()]
    return text[start:]
