r"""Finds numbers and arithmetic in plain text and computes them exactly, without Python's `eval`.

    find_expressions("( 84.0 / 2.0 ) = 42 books")     "( 84.0 / 2.0 )" and "42", which follows "="
    find_expressions("2x - 20")                       one, without a value

Understood: numerals of several countries, multiplier words, scientific notation, + - * / ^ and
parentheses, products without a sign (`2(3)`), mixed numbers (`1 1/2`). What looks like a number and
is none (algebra, roots that are not whole, dates, times, ratios, ranges, tuples) is one expression
without a value, so that its first digits are not taken for it.

Why not math-verify: it compares two answers, but a vote needs one canonical text per answer; it
reads `( 84.0 / 2.0 )` as 2 and `1 1/2` as 1 (0.9.0); and its time limit uses SIGALRM, which works
only in the main thread. Here every pattern is linear (possessive), and every number is bounded.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from qcrd_core.data.readers.numerals import MAX_DIGITS, MULTIPLIERS, DecimalMark, read_numeral
from qcrd_core.data.readers.plain import OPAQUE

_MAX_BITS = 400
_MAX_EXPONENT = 64

_WORDS_OF_SIZE = "|".join(sorted((word for word in MULTIPLIERS if len(word) > 1), key=len))
_LETTERS = "A-Za-z\u00c0-\u024f\u0370-\u03bf\u03c1-\u04ff"
_TOKEN = re.compile(
    rf"""
    (?P<space>[ \t]++)
    |(?P<mixed>(?<![\w.])[0-9]{{1,9}}+\ [0-9]{{1,9}}+/[0-9]{{1,9}}+(?![\w/]))
    |(?P<date>(?<![{_LETTERS}0-9_])(?:
        [0-9]{{4}}(?P<mark>[-/])[0-9]{{1,2}}(?P=mark)[0-9]{{1,2}}
        |[0-9]{{1,2}}(?P<last>[-/])[0-9]{{1,2}}(?P=last)(?:[0-9]{{4}}|[0-9]{{2}})
        |[0-9]++(?::[0-9]++)++|[0-9]++\ :\ [0-9]++
     )(?![0-9]))
    |(?P<number>(?<![{_LETTERS}0-9_])(?:
        [0-9]{{1,3}}+(?:\ [0-9]{{3}}(?![0-9]))++(?:[.,][0-9]++)?+
        |[0-9]++(?:[.,'_][0-9]++)*+
        |(?<!\.)\.[0-9]++
     )(?:[eE][-+]?[0-9]++(?![A-Za-z0-9_]))?+)
     (?P<size>(?:[ -]?(?:(?i:{_WORDS_OF_SIZE})s?(?![A-Za-z])|[百千万萬億亿]))*+)
     (?P<suffix>[A-Za-zµ]*+(?:(?<=m)\^\(?[23]\)?)?+)
    |(?P<sign>[-+*/^()])
    |(?P<equals>=)
    |(?P<bound>[<>≤≥≠])
    |(?P<opaque>{OPAQUE}[A-Za-z]?)
    |(?P<letter>(?<![A-Za-z0-9_'])[A-Za-z](?![A-Za-z0-9_'])(?:
        (?=\ ?[-+*/^(<>≤≥])|(?<=[-+*/^()<>≤≥{OPAQUE}].)|(?<=[-+*/^(<>≤≥{OPAQUE}]\ .)))
    |(?P<words>(?:
        [A-Za-z]{{2,}}+(?:(?<=m)\^\(?[23]\)?)?+|(?<![A-Za-z])m\^\(?[23]\)?
        |[A-Za-z](?!\ ?[-+*/^(<>≤≥])|\.(?![0-9])|[ ,;:!?'"\n&#@\[\]|~]|[^\x00-\x7f{OPAQUE}≤≥≠]
     )++)
    |(?P<other>.|\n)
    """,
    re.VERBOSE,
)
_PAIR = re.compile(r"[0-9]+,(?:[0-9]{1,2}|[0-9]{4,})")
_BREAKS = {"words", "other"}
_COMMAS = {",", ";"}
_ORDINALS = {"st", "nd", "rd", "th"}
_TIGHT_SIZES = {"k": "k", "K": "k", "M": "million", "B": "billion", "bn": "bn", "mn": "mn"}
# `5m` is five metres, `5x` and `2ab` are algebra.
_VARIABLES = re.compile(r"[a-fijnoqrt-zXYZ]|[abcnxyz]{2,3}")
_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2, "neg": 3, "^": 4}


@dataclass(frozen=True, slots=True)
class Expression:
    """A number, or numbers joined by arithmetic signs, in a text."""

    text: str
    """As written, except that LaTeX and signs are plain."""
    value: Fraction | None
    """Exact value; None if it has none, is no rational number, or is out of bounds."""
    start: int
    """Offset in the plain text."""
    end: int
    """Offset after it."""
    follows_equals: bool
    """Whether `=` is directly before it."""


class _Token(NamedTuple):
    kind: str
    """number, opaque or sign"""
    text: str
    start: int
    end: int
    value: Fraction | None = None


def find_expressions(text: str, mark: DecimalMark = ".") -> list[Expression]:
    """Find all numbers and arithmetic expressions.

    Args:
        text: Text as `plain` returns it.
        mark: Decimal mark of numerals with two readings.

    Returns:
        Expressions in the order of the text. Never raises: without a value, `value` is None.
    """
    return [_expression(text, run, follows) for run, follows in _runs(text, mark)]


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


def _runs(text: str, mark: DecimalMark) -> Iterator[tuple[list[_Token], bool]]:
    """Group tokens into expressions, each with whether `=` is before it."""
    run: list[_Token] = []
    follows = after_equals = False
    bounded = False  # after `x <`: the number is a bound, not a value
    num_open = 0
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup
        if kind == "space":
            continue
        if kind in _BREAKS and not (num_open and match.group().strip() in _COMMAS):
            # Most of a text is words: they end an expression without further questions.
            if run:
                if complete := _complete(run, bounded):
                    yield complete, follows
                run, num_open = [], 0
            after_equals = bounded = False
            continue
        for token in _tokens(match, kind, num_open, mark):
            if not _continues(run, token, text, after_equals):
                if kind == "bound":
                    bounded = bool(run) and run[-1].kind != "sign"
                if complete := _complete(run, bounded or kind == "bound"):
                    yield complete, follows
                run, num_open = [], 0
                if not _continues(run, token, text, after_equals):
                    after_equals = kind == "equals"
                    bounded = bounded and kind == "bound"
                    continue
            if not run:
                follows, after_equals = after_equals, False
            run.append(token)
            num_open += {"(": 1, ")": -1}.get(token.text, 0)
    if complete := _complete(run, bounded):
        yield complete, follows


def _tokens(
    match: re.Match[str], kind: str | None, num_open: int, mark: DecimalMark
) -> tuple[_Token, ...]:
    """The token of a match; a letter after a number (`2x`) is a token too."""
    start, end, shown = match.start(), match.end(), match.group()
    if kind == "suffix":
        return _number_tokens(match, num_open, mark)
    if kind == "mixed":
        whole, _, part = shown.partition(" ")
        top, _, bottom = part.partition("/")
        proper = int(bottom) > int(top)  # `3 5/2` is two numbers, and so is `1 1/0`
        value = int(whole) + Fraction(int(top), int(bottom)) if proper else None
        return (_Token("number" if proper else "opaque", shown, start, end, value),)
    if kind in {"date", "opaque", "letter"}:
        return (_Token("opaque", shown, start, end),)
    if kind in _BREAKS:
        return (_Token("comma", shown, start, end),)
    return (_Token("sign" if kind == "sign" else "break", shown, start, end),)


def _number_tokens(match: re.Match[str], num_open: int, mark: DecimalMark) -> tuple[_Token, ...]:
    start, end, suffix = match.start(), match.end(), match["suffix"]
    text, size = match["number"], match["size"]
    if text.isdecimal() and len(text) <= MAX_DIGITS and not suffix and not size:
        return (_Token("number", text, start, end, Fraction(int(text))),)
    if suffix in _ORDINALS:
        return (_Token("break", match.group(), start, end),)
    # `(3,0)` is a pair, although `3,0` alone is a decimal in many countries.
    is_pair = num_open and mark == "." and _PAIR.fullmatch(text)
    value = None if is_pair else read_numeral(text, mark)
    if value is not None and (size or suffix in _TIGHT_SIZES):
        for word in re.findall(r"[^\W\d_]+", size):
            folded = word.lower()
            value *= MULTIPLIERS.get(folded) or MULTIPLIERS[folded.removesuffix("s")]
        if suffix in _TIGHT_SIZES:
            value *= MULTIPLIERS[_TIGHT_SIZES[suffix]]
    kind = "opaque" if value is None else "number"
    token = _Token(kind, match.group(), start, end - len(suffix), value)
    if suffix and _VARIABLES.fullmatch(suffix):
        return token, _Token("opaque", suffix, end - len(suffix), end)
    return (token, _Token("break", suffix, end, end)) if suffix else (token,)


def _continues(run: list[_Token], token: _Token, text: str, after_equals: bool) -> bool:
    """Whether an expression may continue or begin with this token."""
    kind = token.kind
    is_operand = kind in {"number", "opaque"}
    if not run:
        return is_operand or token.text == "(" or _is_prefix_sign(token, text, after_equals)
    last = run[-1]
    if last.kind == "comma":
        return is_operand or token.text in {"-", "+", "("}
    if last.kind in {"number", "opaque"} or last.text == ")":
        if kind == "comma":
            return True
        tight = last.end == token.start
        if token.text == "(":
            return tight
        if kind == "opaque":  # `5 π` and `2x`, but not `5 a day`
            return tight or token.text[0] == OPAQUE or last.text[0] == OPAQUE
        if kind == "number":
            return last.text[0] == OPAQUE or (last.text == ")" and tight)
        return kind == "sign"
    if token.kind == "opaque" and len(token.text) == 1:  # "5 - a nice number"
        return token.text not in "aAI" or last.end == token.start
    return is_operand or token.text in {"-", "+", "("}


def _is_prefix_sign(token: _Token, text: str, after_equals: bool) -> bool:
    """Whether a minus is a sign: it is directly before a number and not after a word.

    The dash of a list ("- 5 apples") and a hyphen ("room-5") are not signs; after `=` it is one.
    """
    before = text[token.start - 1 : token.start]
    after = text[token.end : token.end + 1]
    if token.text != "-" or before.isalnum():
        return False
    return after.isdigit() or after in {"(", ".", OPAQUE} or after_equals


def _complete(run: list[_Token], bounded: bool) -> list[_Token]:
    """Drop a dangling operator and parentheses without a partner; nothing if no number is left."""
    if len(run) == 1 and run[0].kind == "number" and not bounded:
        return run
    while run and (run[-1].kind == "comma" or (run[-1].kind == "sign" and run[-1].text != ")")):
        run.pop()
    opened: list[int] = []
    unmatched: set[int] = set()
    for index, token in enumerate(run):
        if token.text == "(":
            opened.append(index)
        elif token.text == ")":
            if opened:
                opened.pop()
            else:
                unmatched.add(index)
    unmatched.update(opened)
    kept = [token for index, token in enumerate(run) if index not in unmatched]
    if not any(
        token.kind == "number" or len(token.text) > 1 or token.text == OPAQUE for token in kept
    ):
        return []
    return [*kept, _Token("opaque", "", kept[-1].end, kept[-1].end)] if bounded else kept


def _expression(text: str, run: list[_Token], follows: bool) -> Expression:
    start, end = run[0].start, run[-1].end
    value = run[0].value if len(run) == 1 else _value(run)
    if value is not None and len(run) == 3 and _is_range(text, run):
        value = None
    return Expression(text[start:end], value, start, end, follows)


def _is_range(text: str, run: list[_Token]) -> bool:
    """Whether it is `10-12`, or `10 - 12 hours`, rather than a difference."""
    low, sign, high = run
    if sign.text != "-" or low.value is None or high.value is None or low.value >= high.value:
        return False
    return low.end == sign.start or text[high.end : high.end + 2].strip().isalpha()


def _value(run: list[_Token]) -> Fraction | None:
    """Compute tokens with two stacks, without recursion, so that nesting needs no Python frames."""
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
    if abs(exponent) > _MAX_EXPONENT:
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
