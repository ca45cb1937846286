r"""One numeral as people of several countries write it, with exact value.

    read_numeral("1,234.50", ".")     Fraction(2469, 2)
    read_numeral("1.234,5", ".")      the same: only one reading is possible
    read_numeral("1.234", ".")        1.234, and with "," 1234: both are possible, the mark decides
    read_numeral("1,2,3", ".")        None: a list, no numeral

Words and letters that multiply (`million`, `k`) are in `MULTIPLIERS`.
"""

import re
from fractions import Fraction
from typing import Literal

DecimalMark = Literal[".", ","]

MAX_DIGITS = 60
"""Longest numeral and longest canonical text, in characters. Answers are far shorter; the bound
keeps a looping model's "1111..." from taking time."""
MAX_EXPONENT = 64

MULTIPLIERS = {
    "hundred": 10**2,
    "thousand": 10**3,
    "tausend": 10**3,
    "k": 10**3,
    "lakh": 10**5,
    "million": 10**6,
    "millionen": 10**6,
    "mio": 10**6,
    "mn": 10**6,
    "crore": 10**7,
    "milliarde": 10**9,
    "milliarden": 10**9,
    "milliard": 10**9,
    "mrd": 10**9,
    "billion": 10**9,
    "bn": 10**9,
    "trillion": 10**12,
    "dozen": 12,
    "百": 10**2,
    "千": 10**3,
    "万": 10**4,
    "萬": 10**4,
    "億": 10**8,
    "亿": 10**8,
}
"""Value by word, in lower case and singular. A dozen is twelve, so `3 dozen` is 36."""

# Marks of thousands that are not also a decimal mark. `_` stands for spaces and LaTeX's `\,` too.
_GROUPED = re.compile(r"[0-9]{1,3}(?:(['_ ])[0-9]{3})(?:\1[0-9]{3})*(?:[.,][0-9]+)?")
_COMMAS = re.compile(r"[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]+)?")
_POINTS = re.compile(r"[1-9][0-9]{0,2}(?:\.[0-9]{3})+(?:,[0-9]+)?")
_INDIAN = re.compile(r"[1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3}(?:\.[0-9]+)?")
_DECIMAL = re.compile(r"[0-9]*[.,][0-9]+")


def read_numeral(text: str, mark: DecimalMark) -> Fraction | None:
    """Read digits with their separators, optionally with an exponent (`1.5e3`).

    Args:
        text: ASCII digits, with `.`, `,`, `'`, `_` or spaces between them.
        mark: Decimal mark that decides if two readings are possible.

    Returns:
        The value; None if the separators fit no way of writing a number, or it is out of bounds.
    """
    if len(text) > MAX_DIGITS:
        return None
    if text.isdecimal():
        return Fraction(int(text))
    mantissa, _, exponent = text.replace("E", "e").partition("e")
    digits = _with_point(mantissa, mark)
    if digits is None or len(exponent) > 3 or abs(int(exponent or 0)) > MAX_EXPONENT:
        return None
    whole, _, part = digits.partition(".")
    value = Fraction(int(whole + part), 10 ** len(part))
    return value * Fraction(10) ** int(exponent) if exponent else value


def _with_point(text: str, mark: DecimalMark) -> str | None:
    """The numeral without marks of thousands and with `.` before its decimals."""
    if text.isdecimal():
        return text
    if _GROUPED.fullmatch(text):
        return re.sub("['_ ]", "", text).replace(",", ".")
    if _INDIAN.fullmatch(text):
        return text.replace(",", "")
    # A single mark with three digits after it fits both; that of the data set is the decimal one.
    commas, points = _COMMAS.fullmatch(text), _POINTS.fullmatch(text)
    if commas and not (points or (mark == "," and text.count(",") == 1 and "." not in text)):
        return text.replace(",", "")
    if points and not (mark == "." and text.count(".") == 1 and "," not in text):
        return text.replace(".", "").replace(",", ".")
    return text.replace(",", ".") if _DECIMAL.fullmatch(text) else None
