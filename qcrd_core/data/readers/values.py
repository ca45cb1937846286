"""Exact values of arithmetic that is split into tokens, and their canonical text."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

from qcrd_core.data.readers.numerals import MAX_DIGITS, MAX_EXPONENT

_MAX_BITS = 400
_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2, "neg": 3, "^": 4}


class Token(NamedTuple):
    """A number, a sign, or what is none of them, in a text."""

    kind: str
    """number, opaque, sign, comma, or break"""
    text: str
    start: int
    end: int
    value: Fraction | None = None


def value_of(run: Sequence[Token]) -> Fraction | None:
    """Compute an expression with two stacks, so that nesting needs no Python frames.

    Args:
        run: Its tokens.

    Returns:
        The exact value; None if it has none, is no rational number, or is out of bounds.
    """
    values: list[Fraction] = []
    waiting: list[str] = []
    is_operand_next = True
    try:
        for token in run:
            if token.kind != "sign" or token.text == "(":
                if not is_operand_next:  # a product without a sign
                    _reduce("*", waiting, values)
                if token.text == "(":
                    waiting.append("(")
                elif token.value is None:
                    return None
                else:
                    values.append(token.value)
                is_operand_next = token.text == "("
            elif token.text == ")":
                while waiting[-1] != "(":
                    _apply(waiting.pop(), values)
                waiting.pop()
                is_operand_next = False
            elif is_operand_next:
                if token.text == "-":
                    waiting.append("neg")
            else:
                _reduce(token.text, waiting, values)
                is_operand_next = True
        while waiting:
            _apply(waiting.pop(), values)
    except (ArithmeticError, ValueError, IndexError):
        return None
    return values[0] if len(values) == 1 else None


def _reduce(sign: str, waiting: list[str], values: list[Fraction]) -> None:
    level = _PRECEDENCE[sign]
    while waiting and waiting[-1] != "(":
        top = _PRECEDENCE[waiting[-1]]
        # Powers group to the right: 2^3^2 is 2^9.
        if top < level or (top == level and sign == "^"):
            break
        _apply(waiting.pop(), values)
    waiting.append(sign)


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if abs(exponent) > MAX_EXPONENT:
        msg = "The exponent is out of bounds."
        raise OverflowError(msg)
    root = exponent.denominator
    if root > 1:
        base = Fraction(_root(base.numerator, root), _root(base.denominator, root))
    return Fraction(base**exponent.numerator)


def _root(value: int, degree: int) -> int:
    """The whole root, or a ValueError if there is none."""
    if degree <= 3:
        guess = round(abs(value) ** (1 / degree)) if value.bit_length() < 1000 else 0
        # A float has 53 bits, so a large root is a few off; a handful of steps of Newton mend it.
        for _ in range(4 if guess else 0):
            guess += (abs(value) - guess**degree) // (degree * guess ** (degree - 1))
        if guess**degree == abs(value) and (value >= 0 or degree == 3):
            return guess if value >= 0 else -guess
    msg = "The root is not whole."
    raise ValueError(msg)


_APPLY: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "^": _power,
}


def _apply(sign: str, values: list[Fraction]) -> None:
    right = values.pop()
    result = -right if sign == "neg" else _APPLY[sign](values.pop(), right)
    if max(result.numerator.bit_length(), result.denominator.bit_length()) > _MAX_BITS:
        msg = "The result is out of bounds."
        raise OverflowError(msg)
    values.append(result)


def format_number(value: Fraction) -> str | None:
    """Write a number in its canonical form.

    Args:
        value: Any rational number.

    Returns:
        `7`, `-2.5` (if the decimals end) or `1/3` (otherwise, reduced). None if the text is longer
        than MAX_DIGITS.
    """
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > _MAX_BITS:
        return None
    if value.denominator == 1:
        text = str(value.numerator)
        return text if len(text) <= MAX_DIGITS else None
    rest, twos, fives = value.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    if rest != 1:
        text = f"{value.numerator}/{value.denominator}"
        return text if len(text) <= MAX_DIGITS else None
    places = max(twos, fives)
    digits = str(abs(value.numerator) * 10**places // value.denominator).zfill(places + 1)
    sign = "-" if value < 0 else ""
    text = f"{sign}{digits[:-places]}.{digits[-places:]}"
    return text if len(text) <= MAX_DIGITS else None
