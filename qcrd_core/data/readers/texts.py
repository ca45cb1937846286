"""Sentences of a text, and texts without what does not distinguish them."""

import re
import unicodedata
from collections.abc import Iterator

# It begins with one set of characters, so that a search skips all others at once.
_SENTENCE_END = re.compile(
    r"[.!?\n。！？](?:(?<=[.!?])[\"'”’)*]{0,3}(?:\s++|$)|(?<=\n)\n*+|(?<=[。！？]))"  # noqa: RUF001
)
# A full stop after one of these ends no sentence: titles, and words that a number or name follows.
_ABBREVIATED = re.compile(
    r"(?:^|[\s(\"'“‘.])"  # noqa: RUF001
    r"(?:[A-Z]|[Ss]t|[Mm]t|[Ff]t|[Dd]r|[Mm]rs?|[Mm]s|Prof|Gen|Col|Capt|Lt|Sgt|Rev|Hon|Sr|Jr"
    r"|[Nn]o|[Vv]s|[Aa]pprox|[Cc]a|Rs|Fig|Eq|e\.g|i\.e|p\.?m|a\.?m)$"
)
_AROUND = " \t\n\r\"'`*_.,;:!?。、，；：！？“”„‘’«»‹›「」『』"  # noqa: RUF001
_QUOTES = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "„": '"'})  # noqa: RUF001


def sentence_ends(text: str) -> Iterator[tuple[int, int]]:
    """Where sentences end: offsets of the mark that ends each one, and of what follows it."""
    for match in _SENTENCE_END.finditer(text):
        if text[match.start()] != "." or not _is_abbreviated(text, match.start()):
            yield match.span()


def sentences(text: str) -> Iterator[str]:
    """The sentences of a text, without the marks that end them."""
    start = 0
    for end, following in sentence_ends(text):
        yield text[start:end]
        start = following
    yield text[start:]


def first_sentence(text: str) -> str:
    """The first sentence that says something."""
    text = text.lstrip(" \t\n:*")
    # A choice's letter may be followed by a full stop ("b. a shop"), so such a sentence continues.
    is_letter = text[:1].isalpha() and text[1:2] == "."
    end = next((end for end, _ in sentence_ends(text) if end > is_letter), len(text))
    return text[:end]


def fold(text: str) -> str:
    """A text without the differences that do not matter.

    Lower case, Unicode's compatibility form (so that a letter has one code), single spaces,
    straight quotes, and no quotes or punctuation around it.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text.lower()).translate(_QUOTES)
    return " ".join(text.split()).strip(_AROUND).lower()


def _is_abbreviated(text: str, stop: int) -> bool:
    # Only if something follows: a text may end in "St." as in any other word.
    return _ABBREVIATED.search(text, max(0, stop - 8), stop) is not None and bool(
        text[stop + 1 :].strip()
    )
