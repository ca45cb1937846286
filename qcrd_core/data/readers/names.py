"""Which choice or label a text names.

    first_choice("(A), but it is (B).", ["bank", "library"])    ("(B)", "library")
    first_label("not entailment, it is neutral", labels)        ("neutral", "neutral")
    first_choice("both (a) and (b)", choices)                   ("(a)", None): several

Results are as in `qcrd_core.data.readers.numbers`.
"""

import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

from qcrd_core.data.readers.numbers import NOTHING, Found
from qcrd_core.data.readers.texts import fold

_LETTER = re.compile(
    r"""
    (?P<bracket>[(\[{（［【]\s?\**([A-Za-z])\**\s?[)\]}）］】])
    |(?P<cue>(?i:\b(?:option|choice|answer|letter|alternative)s?\s?(?:is|:)?\s?\**))
        (?P<cued>[A-Za-z])(?![\w'’])
    |(?P<bare>(?<![\w'’.])[A-Z](?![\w'’]))
    """,  # noqa: RUF001
    re.VERBOSE,
)
_BEGINS = re.compile(r"[\s*_\"'`$(\[{（［]*([A-Za-z])(?:[)\]}）］]|\**[.:)]|[*\"'”`]*\s*$)(?=\W|$)")  # noqa: RUF001
_BECAUSE = re.compile(r"[\s*_\"']*([A-Z])\**\s?(?:[,;/&–—-]|(?:because|since|as|and|or)(?![\w']))")  # noqa: RUF001
# Before a capital letter alone, which is otherwise an article, a pronoun or a vitamin.
_LEADS = re.compile(
    r"(?:\b(?:is|be|was|are|pick|choose|select|or|and|nor|neither|either|both|not|but)|[:=,/&])"
    r"\s?[*\"']{0,3}$",
    re.IGNORECASE,
)
_NEGATION = re.compile(
    r"(?:\b(?:not|neither|nor|never|cannot be|rather than|instead of|other than|except|ruled? out"
    r"|eliminates?|no)|n[’']t|不|非)[\s\"'*(\[]{0,3}(?:(?:be|an?|the|in|at|option|choice|really|likely|actually|"  # noqa: RUF001
    r"necessarily)\s[\"'*(\[]{0,3})*$",
    re.IGNORECASE,
)
_REJECTED = re.compile(
    r"[\s)\]\"'*]{0,3}(?:,?\s?but\s(?:it|that|this)\s|,?\swhich\s)?"
    r"(?:(?:is|was|are|were|would be|can be|seems)\s?(?:not|incorrect|wrong|ruled out|eliminated"
    r"|impossible|unlikely|out\b)|(?:isn|wasn|aren|can|doesn|won)[’']t\b|cannot\b|does not\b)",  # noqa: RUF001
    re.IGNORECASE,
)
_JOINED = re.compile(
    r"[\s)\]\"'*.]{0,3}(?:\w[\w\s'-]{0,40}?)?(?:,|,?\s?(?:and|or|and/or|as well as)|/|&)\s?"
    r"[\s(\[\"'*]{0,3}(?:(?:an?|the|option|choice)\s)?[\s(\[\"'*]{0,3}$",
    re.IGNORECASE,
)
_WINDOW = 40
NO_LABELS = "none"
"""The empty set of labels."""
_NO_LABELS = re.compile(r"none(?: of (?:them|these|the (?:above|labels)))?|no labels?|\[\]|\{\}")


class _Mention(NamedTuple):
    start: int
    end: int
    name: str


def exact_name(text: str, names: Sequence[str]) -> str | None:
    """The name that a text is: written exactly so, else in another form."""
    if text in names:
        return text
    folded = fold(text)
    return next((name for name in names if fold(name) == folded), None) if folded else None


def first_choice(text: str, choices: Sequence[str]) -> Found:
    """Read the choice of a text that should be one: its whole text, its letter, else the first.

    Args:
        text: What follows a marker, or a gold answer.
        choices: The question's choices.

    Returns:
        The first choice that is not rejected. Several ones joined by "and" or "or" are none.
    """
    shown = text.strip()
    whole = exact_name(shown, choices)
    if whole is not None:
        return shown, whole
    found = _mentions(shown, choices, _letters(shown, choices))
    return _first(found, shown)


def first_label(text: str, labels: Sequence[str]) -> Found:
    """Read the label of a text that should be one, as `first_choice` does without letters."""
    whole = exact_name(text, labels)
    return (text.strip(), whole) if whole is not None else _first(_mentions(text, labels, []), text)


def all_labels(text: str, labels: Sequence[str]) -> Found:
    """Read a set of labels: all that are named and not denied, in the data set's order.

    Args:
        text: What follows a marker, or a gold answer.
        labels: All labels of the data set.

    Returns:
        The labels, joined by commas; `NO_LABELS` if the text says that there are none.
    """
    found = _mentions(text, labels, [])
    standing = {item.name for item in found if not _is_negated(item, text)}
    if standing:
        return text.strip(), ", ".join(label for label in labels if label in standing)
    if _NO_LABELS.fullmatch(fold(text)):
        return text.strip(), NO_LABELS
    return (text.strip(), None) if found else NOTHING


def last_choice(text: str, choices: Sequence[str]) -> Found:
    """Read the choice of a text without a marker: the last letter, else the last choice named."""
    last_line = text.strip().rpartition("\n")[2]
    whole = exact_name(last_line, choices)
    if whole is not None:
        return last_line.strip(), whole
    begins = _letter_at_start(last_line, choices)
    if begins is not None and {item.name for item in _letters(last_line, choices)} == {begins.name}:
        return last_line[begins.start : begins.end].strip(), begins.name
    letters = [item for item in _letters(text, choices) if not _is_negated(item, text)]
    return _last(letters, text) if letters else _last(_mentions(text, choices, []), text)


def last_label(text: str, labels: Sequence[str]) -> Found:
    """Read the label of a text without a marker: the last one named."""
    return _last(_mentions(text, labels, []), text)


def _first(found: list[_Mention], text: str) -> Found:
    standing = [item for item in found if not _is_negated(item, text)]
    if not standing:
        return (text[found[0].start : found[0].end], None) if found else NOTHING
    chosen = standing[0]
    shown = text[chosen.start : chosen.end]
    if any(item.name != chosen.name and _is_joined(chosen, item, text) for item in standing[1:]):
        return shown, None
    return shown, chosen.name


def _last(found: list[_Mention], text: str) -> Found:
    standing = [item for item in found if not _is_negated(item, text)]
    if not standing:
        return (text[found[-1].start : found[-1].end], None) if found else NOTHING
    chosen = standing[-1]
    shown = text[chosen.start : chosen.end]
    others = [item for item in standing[-2:-1] if item.name != chosen.name]
    is_one_of_two = any(_is_joined(item, chosen, text) for item in others)
    return shown, None if is_one_of_two else chosen.name


def _is_negated(item: _Mention, text: str) -> bool:
    head = text[max(0, item.start - _WINDOW) : item.start]
    return bool(_NEGATION.search(head) or _REJECTED.match(text, item.end))


def _is_joined(first: _Mention, second: _Mention, text: str) -> bool:
    is_near = second.start - first.end <= 2 * _WINDOW
    return is_near and _JOINED.fullmatch(text, first.end, second.start) is not None


def _letter_at_start(text: str, choices: Sequence[str]) -> _Mention | None:
    match = _BEGINS.match(text) or _BECAUSE.match(text)
    if match is None:
        return None
    choice = _choice_of(match[1], choices)
    return None if choice is None else _Mention(match.start(1), match.end(1), choice)


def _letters(text: str, choices: Sequence[str]) -> list[_Mention]:
    """All letters that stand for a choice."""
    begins = _letter_at_start(text, choices)
    found = [] if begins is None else [begins]
    for match in _LETTER.finditer(text):
        if match["bare"] and not _LEADS.search(text[max(0, match.start() - 12) : match.start()]):
            continue
        if match["bare"] in {"A", "I"} and re.match(
            r"\s[a-z]", text[match.end() : match.end() + 2]
        ):
            continue  # "It is A bank"
        letter = match[2] or match["cued"] or match["bare"]
        choice = _choice_of(letter, choices)
        if choice is not None and not (found and match.start() <= found[0].start < match.end()):
            found.append(_Mention(match.start(), match.end(), choice))
    return found


def _choice_of(letter: str, choices: Sequence[str]) -> str | None:
    index = ord(letter.lower()) - ord("a")
    return choices[index] if index < len(choices) else None


@functools.lru_cache(maxsize=1024)
def _mention_pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    # Longest first, so that "not entailment" is not read as "entailment".
    ordered = sorted(enumerate(names), key=lambda item: -len(item[1]))
    return re.compile("|".join(f"(?P<n{number}>{_words(name)})" for number, name in ordered), re.I)


def _words(name: str) -> str:
    """A pattern of a name as whole words; scripts without spaces have no word ends."""
    words = [re.escape(word) for word in re.split(r"[\s_-]+", fold(name)) if word]
    pattern = r"[\s_-]+".join(words).replace("'", "['’]")  # noqa: RUF001
    first, last = fold(name)[0], fold(name)[-1]
    left = (
        r"(?<![^\W\d_])(?<![0-9_])(?<![0-9][.,])"
        if first.isascii() or (first.isalpha() and first < "\u3000")
        else ""
    )
    right = r"(?!\w|[.,][0-9])" if last.isascii() or (last.isalpha() and last < "\u3000") else ""
    return f"{left}{pattern}{right}"


def _mentions(text: str, names: Sequence[str], letters: list[_Mention]) -> list[_Mention]:
    """All mentions of the names as whole words, together with letters, in the text's order."""
    usable = tuple(name for name in names if fold(name))
    if not usable:
        return letters
    found = [
        _Mention(match.start(), match.end(), usable[int((match.lastgroup or "n0")[1:])])
        for match in _mention_pattern(usable).finditer(text)
    ]
    # "(b)" is the letter, also if one of the choices is "b".
    words = [
        item
        for item in found
        if not any(letter.start <= item.start and item.end <= letter.end for letter in letters)
    ]
    return sorted([*words, *letters])
