r"""Finds numbers and arithmetic in free text and computes them exactly, without Python's `eval`.

    find_expressions(plain(r"\frac{1}{2}"))       one, value Fraction(1, 2)
    find_expressions("( 84.0 / 2.0 ) = 42 books") "( 84.0 / 2.0 )" and "42", which follows "="

Understood: thousands commas, decimals, scientific notation, + - * / ^ and parentheses, mixed
numbers (`1 1/2`), currency and percent signs (dropped: 50% is 50), Unicode signs, the usual LaTeX.

Why not math-verify: it compares two answers, but a vote needs one canonical text per answer; it
reads `( 84.0 / 2.0 )` as 2 and `1 1/2` as 1 (0.9.0); and its time limit uses SIGALRM, which works
only in the main thread. Here every pattern is linear (possessive), and every number is bounded.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

# Longest numeral and longest canonical text, in characters. Answers are far shorter; the bound
# keeps a looping model's "1111..." from taking time.
MAX_DIGITS = 60
_MAX_BITS = 400
_MAX_EXPONENT = 64

_SIGNS = str.maketrans(
    {
        **dict.fromkeys("−–‒﹣－", "-"),  # noqa: RUF001  (the signs models write)
        **dict.fromkeys("×⋅·∙✕✖", "*"),  # noqa: RUF001
        **dict.fromkeys("÷∕⁄", "/"),  # noqa: RUF001
        **dict.fromkeys("\u00a0\u2009\u202f\u2007%", " "),
        "½": " 1/2",
        "¼": " 1/4",
        "¾": " 3/4",
    }
)
_LATEX: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\\$", ""),
        (r"\\%|\\[,;:! ]|\\[()\[\]]|\\(?:left|right|displaystyle)\b", " "),
        (r"\{,\}", ","),
        (r"\\(?:times|cdot|ast)\b", "*"),
        (r"\\div\b", "/"),
        (r"\\(?:approx|equiv)\b|≈", "="),
    )
)
# One level of braces per pass, innermost first, so that nesting needs no recursion.
_BRACED: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\\[dtc]?frac\s?\{([^{}]*+)\}\s?\{([^{}]*+)\}"), r"((\1)/(\2))"),
    (re.compile(r"\\(?:boxed|text|mathrm|mathbf|textbf|mbox)\s?\{([^{}]*+)\}"), r" \1 "),
)
_MAX_NESTING = 8
_MARKUP: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(?<=[A-Za-z])[$€£¥₹]"), " "),
    (re.compile(r"[$€£¥₹]\s?"), ""),
    (re.compile(r"(?<=[0-9])\*\*(?=[0-9])"), "^"),
    (re.compile(r"\*\*|__|`"), " "),
    (re.compile(r"(?<=[0-9)])(\s?)[xX](?=\s?[0-9(])"), r"\1*"),
)
_TOKEN = re.compile(
    r"""
    (?P<mixed>(?<![\w.])[0-9]{1,9}+\ [0-9]{1,9}+/[0-9]{1,9}+(?![\w/]))
    |(?P<number>
        (?<!\w)(?:[0-9]{1,3}+(?:,[0-9]{3}+(?![0-9]))++|[0-9]++)(?:\.[0-9]++)?+
        (?:[eE][-+]?[0-9]++(?!\w))?+
        |(?<!\w)\.[0-9]++
    )(?P<ordinal>(?:st|nd|rd|th)\b)?+
    |(?P<sign>[-+*/^()])
    |(?P<equals>=)
    |(?P<space>[ \t]++)
    |(?P<word>\w++)
    |(?P<other>.|\n)
    """,
    re.VERBOSE,
)
_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2, "neg": 3, "^": 4}


@dataclass(frozen=True)
class Expression:
    """A number, or numbers joined by arithmetic signs, in a text."""

    text: str
    """As written, except that LaTeX and signs are plain."""
    value: Fraction | None
    """Exact value; None if there is none (division by zero) or it is out of bounds."""
    start: int
    """Offset in the plain text."""
    follows_equals: bool
    """Whether `=` is directly before it."""


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)


def plain(text: str) -> str:
    """Write LaTeX, Unicode signs, currency and Markdown emphasis as plain arithmetic.

    Args:
        text: Any text.

    Returns:
        Text with ASCII signs; line breaks are kept.
    """
    for pattern, replacement in _LATEX:
        text = pattern.sub(replacement, text)
    for _ in range(_MAX_NESTING):
        before = text
        for pattern, replacement in _BRACED:
            text = pattern.sub(replacement, text)
        if text == before:
            break
    text = text.translate(_SIGNS)
    for pattern, replacement in _MARKUP:
        text = pattern.sub(replacement, text)
    return text


def find_expressions(text: str) -> list[Expression]:
    """Find all numbers and arithmetic expressions.

    Args:
        text: Text as `plain` returns it.

    Returns:
        Expressions in the order of the text. Never raises: without a value, `value` is None.
    """
    return [_expression(text, run, follows) for run, follows in _runs(text)]


def format_number(value: Fraction) -> str | None:
    """Write a number in its canonical form.

    Args:
        value: Any rational number.

    Returns:
        `7`, `-2.5` (if the decimals end) or `1/3` (otherwise, reduced). None if the text is longer
        than MAX_DIGITS.
    """
    rest, twos, fives = value.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > _MAX_BITS:
        return None
    if rest != 1:
        text = f"{value.numerator}/{value.denominator}"
        return text if len(text) <= MAX_DIGITS else None
    places = max(twos, fives)
    digits = str(abs(value.numerator) * 10**places // value.denominator).zfill(places + 1)
    sign = "-" if value < 0 else ""
    text = sign + (f"{digits[:-places]}.{digits[-places:]}" if places else digits)
    return text if len(text) <= MAX_DIGITS else None


def _runs(text: str) -> Iterator[tuple[list[_Token], bool]]:
    """Group tokens into expressions, each with whether `=` is before it."""
    run: list[_Token] = []
    follows = after_equals = False
    for match in _TOKEN.finditer(text):
        token = _Token(match.lastgroup or "other", match.group(), match.start())
        if token.kind == "space":
            continue
        if not _continues(run, token, text):
            complete = _complete(run)
            if complete:
                yield complete, follows
            run = []
            if not _continues(run, token, text):
                after_equals = token.kind == "equals"
                continue
        if not run:
            follows, after_equals = after_equals, False
        run.append(token)
    complete = _complete(run)
    if complete:
        yield complete, follows


def _continues(run: list[_Token], token: _Token, text: str) -> bool:
    """Whether an expression may continue or begin with this token."""
    is_operand = token.kind in {"number", "mixed"} or token.text == "("
    if not run:
        return is_operand or _is_prefix_sign(token, text)
    last = run[-1]
    if last.kind in {"number", "mixed"} or last.text == ")":
        return token.kind == "sign" and token.text != "("
    return is_operand or token.text in {"-", "+"}


def _is_prefix_sign(token: _Token, text: str) -> bool:
    """Whether a minus is a sign: it is directly before a number and not after a word.

    The dash of a list ("- 5 apples") and a hyphen ("room-5") are not signs.
    """
    before = text[token.start - 1 : token.start]
    after = text[token.end : token.end + 1]
    return token.text == "-" and (after.isdigit() or after in {"(", "."}) and not before.isalnum()


def _complete(run: list[_Token]) -> list[_Token]:
    """Drop a dangling operator and parentheses without a partner."""
    run = list(run)
    while run and run[-1].kind == "sign" and run[-1].text != ")":
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
    return [token for index, token in enumerate(run) if index not in unmatched]


def _expression(text: str, run: list[_Token], follows: bool) -> Expression:
    return Expression(
        text=text[run[0].start : run[-1].end],
        value=_value(run),
        start=run[0].start,
        follows_equals=follows,
    )


def _value(run: list[_Token]) -> Fraction | None:
    """Compute tokens with two stacks, without recursion, so that nesting needs no Python frames."""
    values: list[Fraction] = []
    waiting: list[str] = []
    is_operand_next = True
    try:
        for token in run:
            if token.kind != "sign":
                values.append(_literal(token))
                is_operand_next = False
            elif token.text == "(":
                waiting.append("(")
            elif token.text == ")":
                while waiting[-1] != "(":
                    _apply(waiting.pop(), values)
                waiting.pop()
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


def _literal(token: _Token) -> Fraction:
    text = token.text.replace(",", "")
    if token.kind == "mixed":
        whole, part = text.split(" ")
        return Fraction(whole) + Fraction(part)
    mantissa, _, exponent = text.lower().partition("e")
    if len(mantissa) > MAX_DIGITS or len(exponent) > 3 or abs(int(exponent or 0)) > _MAX_EXPONENT:
        msg = "The numeral is out of bounds."
        raise OverflowError(msg)
    return Fraction(text)


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1 or abs(exponent) > _MAX_EXPONENT:
        msg = "The exponent is out of bounds."
        raise OverflowError(msg)
    return Fraction(base ** int(exponent))


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
