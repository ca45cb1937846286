"""Which number of a text is its answer.

    first_number("12 apples and 3 pears", ".")    ("12", "12")
    first_number("2 hours and 30 minutes", ".")   ("2", None): no single number
    last_number("She has 5. He has 6 pens.", ".") ("6", "6")

A result is the text and the canonical number. (None, None) is a text without a number; a text with
None is a number that cannot be read, so nothing else may be taken in its place.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from qcrd_core.data.readers.arithmetic import Expression, find_expressions
from qcrd_core.data.readers.numerals import DecimalMark
from qcrd_core.data.readers.plain import plain
from qcrd_core.data.readers.texts import sentence_ends, sentences
from qcrd_core.data.readers.values import format_number

Found = tuple[str | None, str | None]
"""(text of the answer, canonical answer)"""
NOTHING: Found = (None, None)

_CONCLUSION = re.compile(r"\W*(?:therefore|thus|hence|so|consequently)\b", re.IGNORECASE)
# What a sentence says besides its result: conditions before it, reasons and remarks after it.
_CONDITION = re.compile(
    r"\W*(?:(?:therefore|thus|hence|so|consequently|then),?\s)?"
    r"(?:after|before|if|when|since|because|as|given|with|for|to|on|in|at|during)\b[^,]{1,80},",
    re.IGNORECASE,
)
_REASON = re.compile(r"\b(?:because|since)\b")
_ASIDE = re.compile(
    r"\b(?:after|before|using|if|when|calculated|consisting|including|compared|over the course"
    r"|given)\b"
)
_BRACKETED = re.compile(r"\([^()]*+\)")
_WORD = re.compile(r"[A-Za-z]{2}")
_TOTAL = re.compile(r"\btotal of $")
_NEGATED = re.compile(
    r"(?:\bnot|n't|\bneither|\bnor|\brather than|\binstead of)\s(?:(?!but\b)[^\W\d]{1,12}\s){0,2}$",
    re.IGNORECASE,
)
_DENIALS = ("not", "n't", "either", "nor", "rather", "instead", "NOT")
_MONTHS = frozenset(
    {"January", "February", "March", "April", "May", "June", "July", "August", "September"}
    | {"October", "November", "December", "Jan", "Feb", "Mar", "Apr", "Jun", "Jul", "Aug"}
    | {"Sep", "Sept", "Oct", "Nov", "Dec"}
)
_MONTH = f"(?:{'|'.join(sorted(_MONTHS, key=len, reverse=True))})\\b"
_UNIT = (
    r"(?:years?|months?|weeks?|days?|hours?|hrs?|h|minutes?|mins?|seconds?|secs?|s|miles?|yards?"
    r"|feet|foot|ft|inch(?:es)?|in|km|kilomet(?:er|re)s?|m|met(?:er|re)s?|cm|centimet(?:er|re)s?|mm"
    r"|pounds?|lbs?|ounces?|oz|kg|kilograms?|g|grams?|dollars?|cents?|euros?|quarts?|pints?|gallons?"
    r"|cups?|degrees?)"
)
# After a number: a second one that belongs to the same answer; or a time, or a power in words.
_LISTED = re.compile(
    r"\s{0,3}(?:(?:,\s?(?:and|or)?|and|or|to|through|;|~|\.\.+)\s?)?[-+]?[0-9]++(?!-[a-z])"
)
_COMPOUND = re.compile(
    rf"\s?{_UNIT},?\s(?:and\s)?[0-9][0-9.,]*\s?{_UNIT}\b|\s?[ap]\.?m\b|\s?o'clock"
    rf"|\s(?:squared|cubed|to the power)\b"
    rf"|\sout of\s[0-9.,]++(?!\s?[A-Za-z])|\s(?:of\s)?{_MONTH}",
)
_PRECEDED = re.compile(r"(?:\bbetween|[0-9]\s?(?:\bor|\bto|;|,))\s?$|\bbetween\s[0-9.,]+\sand\s$")
_PARTS = re.compile(
    r"\s?(?:\w+\s)?and (a half|one half|a third|a quarter|two thirds|three quarters)\b",
    re.IGNORECASE,
)
_PART_VALUES = {
    "a half": Fraction(1, 2),
    "one half": Fraction(1, 2),
    "a third": Fraction(1, 3),
    "a quarter": Fraction(1, 4),
    "two thirds": Fraction(2, 3),
    "three quarters": Fraction(3, 4),
}
_SIGN_FIRST = re.compile(r"^\s*-\s+(?=[0-9.(])")
_TWO_SOLUTIONS = re.compile(r"\s?(?:,|or|and|;|,\s?(?:or|and))\s[A-Za-z]\s?=\s?")
_DIGIT = re.compile(r"[0-9]|[^\x00-\x7f]")  # of any script: others are found by `plain`
_WINDOW = 40  # characters before a number that may change its meaning


def first_number(text: str, mark: DecimalMark) -> Found:
    """Read the answer of a text that should be a number.

    Args:
        text: What follows a marker, or a gold answer.
        mark: Decimal mark of numerals with two readings.

    Returns:
        From the first sentence with a number: the value after the last `=`, else the first number
        that is not negated ("not 5 but 6").
    """
    for sentence in sentences(text):
        shown = plain(sentence)
        if sentence and text.startswith(sentence) and "\n-" not in text:  # no list of points
            shown = _SIGN_FIRST.sub("-", shown)
        found = find_expressions(shown, mark)
        if found:
            return _stated(found, shown, mark)
    return NOTHING


def last_number(text: str, mark: DecimalMark) -> Found:
    """Read the answer of a text without a marker.

    Args:
        text: A whole completion.
        mark: Decimal mark of numerals with two readings.

    Returns:
        From the last sentence with a number: the value after the last `=`, else the first number of
        a conclusion ("Therefore ..."), else the last number.
    """
    end = len(text)
    for stop, following in reversed([(0, 0), *sentence_ends(text)]):
        sentence, end = text[following:end], stop
        if not _DIGIT.search(sentence):
            continue
        shown = plain(sentence)
        found = find_expressions(shown, mark)
        if not found:
            continue
        reason = _REASON.search(shown)
        stated = [item for item in found if reason is None or item.start < reason.start()] or found
        result = _after_equals(stated, shown)
        if result is not None:
            return _number(result, shown, mark)
        found = _main(stated, shown)
        # "So he read 102 pages a day to finish in 6 days": a conclusion names its result first.
        if _CONCLUSION.match(shown):
            return _stated(found, shown, mark)
        chosen = next((item for item in found if _TOTAL.search(_before(item, shown))), found[-1])
        if _PRECEDED.search(_before(chosen, shown)):
            return chosen.text, None
        return _number(chosen, shown, mark)
    return NOTHING


def _main(found: list[Expression], shown: str) -> list[Expression]:
    """The expressions of the main clause, all if it has none.

    "After 25 days they have 60 (20 of them ripe) because 2 * 30 = 60": only the first 60.
    """
    condition = _CONDITION.match(shown)
    kept = found
    if condition is not None:
        kept = [item for item in found if item.start >= condition.end()] or found
    if "(" in shown:
        bare = _BRACKETED.sub(_blank_if_words, shown)
        kept = [item for item in kept if bare[item.start] != " "] or kept
    aside = _ASIDE.search(shown, kept[0].end)
    if aside is not None:
        kept = [item for item in kept if item.start < aside.start()]
    return kept


def _blank_if_words(match: re.Match[str]) -> str:
    return " " * len(match[0]) if _WORD.search(match[0]) else match[0]


def _stated(found: Sequence[Expression], shown: str, mark: DecimalMark) -> Found:
    chosen = _after_equals(found, shown)
    if chosen is None:
        may_deny = any(word in shown for word in _DENIALS)
        stated = (
            item for item in found if not (may_deny and _NEGATED.search(_before(item, shown)))
        )
        chosen = next(stated, None)
        if chosen is None or _PRECEDED.search(_before(chosen, shown)):
            return found[0].text, None
    return _number(chosen, shown, mark)


def _after_equals(found: Sequence[Expression], shown: str) -> Expression | None:
    """The last result of an equation; without a value if it is one of two solutions."""
    results = [item for item in found if item.follows_equals]
    if len(results) > 1:
        first, second = results[-2:]
        if _TWO_SOLUTIONS.fullmatch(shown[first.end : second.start]):
            return replace(second, value=None)
    return results[-1] if results else None


def _before(item: Expression, shown: str) -> str:
    return shown[max(0, item.start - _WINDOW) : item.start]


def _number(item: Expression, shown: str, mark: DecimalMark) -> Found:
    value, following = item.value, shown[item.end : item.end + _WINDOW]
    last_word = _before(item, shown).rpartition(" ")[0].rpartition(" ")[2]
    is_part = last_word.strip(".,") in _MONTHS or _COMPOUND.match(following)
    if value is None or is_part or (not item.follows_equals and _LISTED.match(following)):
        return item.text, None
    part = _PARTS.match(following)
    if part is not None:
        value += _PART_VALUES[part[1].lower()]
    text = format_number(value)
    return item.text, text if text is None or mark == "." else text.replace(".", mark)
