"""Splits what a model wrote into its thought and the completion that follows.

    split_thought("<think>Is it 9? No.</think>3 * 4 = 12. The answer is 12.")
    Split(thought="Is it 9? No.", final="3 * 4 = 12. The answer is 12.")

Models that reason write their thought between tags, unless the server has taken it out. What they
write there is tentative, so no answer may be read from it. Chat templates of DeepSeek-R1, MiniMax
and others open the thought in the prompt: the completion then begins inside it and holds only the
closing tag.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from qcrd_core.config.base import THINK_TAGS

Tags = tuple[str, str]
"""Opening and closing tag. With an empty opening tag every completion begins inside a thought, and
the opening tag that belongs to the closing one (`<think>`) begins another one."""


@dataclass(frozen=True)
class Split:
    """A text in its two parts, stripped of tags and of space around them."""

    thought: str | None
    """None if the model did not think, or thought nothing before it answered."""
    final: str | None
    """What follows the thought; None if nothing does, or if the thought has no end."""


def split_thought(text: str, tags: Tags = THINK_TAGS) -> Split:
    """Split a text at its tags.

    A closing tag without an opening one ends a thought that began with the text. Several thoughts
    are joined, and so are the texts between and after them. If a thought has no end, everything
    belongs to it: what the model would have concluded is not known.

    Args:
        text: Text of a model.
        tags: The tags, compared exactly: they are single tokens of the model.

    Returns:
        Thought and final part. A text without tags is a final part, unchanged.
    """
    is_thinking, (opening, closing) = not tags[0], _both(tags)
    if not is_thinking and opening not in text and closing not in text:
        return Split(None, text)  # most texts, and much faster than the pattern
    thoughts: list[str] = []
    finals: list[str] = []
    for number, piece in enumerate(_pattern(opening, closing).split(text)):
        if number % 2 == 0:
            (thoughts if is_thinking else finals).append(piece)
        elif piece == opening:
            is_thinking = True
        else:
            if not is_thinking:  # it ends a thought that was not opened here
                thoughts, finals = [*thoughts, *finals], []
            is_thinking = False
    if is_thinking:
        thoughts, finals = [*finals, *thoughts], []
    thought, final = _joined(thoughts), _joined(finals)
    return Split("" if thought is None and final is None else thought, final)


def opens_in_prompt(text: str, tags: Tags = THINK_TAGS) -> bool:
    """Whether a text closes a thought that it did not open, so its chat template opened it."""
    opening, closing = _both(tags)
    before, found, _ = text.partition(closing)
    return bool(found) and opening not in before


def _joined(pieces: list[str]) -> str | None:
    return "\n".join(piece.strip() for piece in pieces if piece.strip()) or None


def _both(tags: Tags) -> Tags:
    return (tags[0] or tags[1].replace("/", "", 1), tags[1])


@lru_cache(maxsize=16)
def _pattern(opening: str, closing: str) -> re.Pattern[str]:
    return re.compile(f"({re.escape(opening)}|{re.escape(closing)})")
