"""The equations that a rationale writes, and the first of them that is false.

    false_step("5 + 3 = 8. 8 / 4 = 3. The answer is 3.")    18, just behind the second "="

Offsets are those of the text as it is written.
"""

import re
from fractions import Fraction
from itertools import pairwise

from qcrd_core.data.readers.arithmetic import Expression, find_expressions
from qcrd_core.data.readers.plain import CALCULATOR, plain

_EQUALS = re.compile(r"[=≈≡＝≃]|\\(?:approx|equiv|simeq)(?![A-Za-z])")  # noqa: RUF001
"""What `plain` writes as "=", so that the n-th of both texts is the same sign."""
_OPERATOR = re.compile(r"(?<=[0-9)])\s*[-+*/^]")
_DANGLING = re.compile(r"[-+*/^(]\s*$")


def false_step(text: str) -> int | None:
    """Find the first equation of a rationale whose two sides differ.

    Judged are equations of numbers alone, "8 / 4 = 2", and chains of them. A result that is rounded
    to the decimals it is written with is right, and so is one that goes on, "2 * 3 = 6 + 1 = 7".
    What cannot be read for certain is not judged: units inside an expression, unknowns,
    percentages.

    Args:
        text: A rationale.

    Returns:
        Offset in `text` behind the equals sign, where the false result begins; None if no equation
        is known to be false.

    Source:
        Ours. The step, not the wording, is what a wrong rationale should be pushed away from.
    """
    if "%" in text:  # `plain` drops the sign, and 50 % of 8 is not 50 * 8
        return None
    # `plain` leaves out calculators with their "="; blanks keep all offsets.
    text = CALCULATOR.sub(lambda match: " " * len(match[0]), text)
    simple = plain(text)
    found = find_expressions(simple)
    for left, right in pairwise(found):
        if _is_false(simple, left, right):
            number = simple.count("=", 0, right.start)
            ends = [match.end() for match in _EQUALS.finditer(text)]
            return ends[number - 1] if number <= len(ends) else None
    return None


def _is_false(text: str, left: Expression, right: Expression) -> bool:
    """Whether `left = right` stands in the text and is wrong."""
    end = left.start + len(left.text)
    if text[end : right.start].strip() != "=" or left.value is None or right.value is None:
        return False
    is_whole = left.follows_equals or not _DANGLING.search(text[: left.start])
    is_sum = bool(_OPERATOR.search(left.text)) or left.follows_equals
    return is_whole and is_sum and not _equal(left.value, right)


def _equal(value: Fraction, written: Expression) -> bool:
    first = find_expressions(_OPERATOR.split(written.text, maxsplit=1)[0])
    decimals = re.fullmatch(r"-?[0-9,]*\.([0-9]+)", written.text)
    rounding = Fraction(1, 2 * 10 ** len(decimals[1])) if decimals else 0
    stated = [part.value for part in (written, *first) if part.value is not None]
    return any(abs(value - number) <= rounding for number in stated)
