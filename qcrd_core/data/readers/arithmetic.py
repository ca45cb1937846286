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
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from qcrd_core.data.readers.numerals import MAX_DIGITS, MULTIPLIERS, DecimalMark, read_numeral
from qcrd_core.data.readers.plain import OPAQUE
from qcrd_core.data.readers.values import Token, value_of

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


def find_expressions(text: str, mark: DecimalMark = ".") -> list[Expression]:
    """Find all numbers and arithmetic expressions.

    Args:
        text: Text as `plain` returns it.
        mark: Decimal mark of numerals with two readings.

    Returns:
        Expressions in the order of the text. Never raises: without a value, `value` is None.
    """
    return [_expression(text, run, follows) for run, follows in _runs(text, mark)]


def _runs(text: str, mark: DecimalMark) -> Iterator[tuple[list[Token], bool]]:
    """Group tokens into expressions, each with whether `=` is before it."""
    run: list[Token] = []
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
) -> tuple[Token, ...]:
    """The token of a match; a letter after a number (`2x`) is a token too."""
    start, end, shown = match.start(), match.end(), match.group()
    if kind == "suffix":
        return _number_tokens(match, num_open, mark)
    if kind == "mixed":
        whole, _, part = shown.partition(" ")
        top, _, bottom = part.partition("/")
        proper = int(bottom) > int(top)  # `3 5/2` is two numbers, and so is `1 1/0`
        value = int(whole) + Fraction(int(top), int(bottom)) if proper else None
        return (Token("number" if proper else "opaque", shown, start, end, value),)
    if kind in {"date", "opaque", "letter"}:
        return (Token("opaque", shown, start, end),)
    if kind in _BREAKS:
        return (Token("comma", shown, start, end),)
    return (Token("sign" if kind == "sign" else "break", shown, start, end),)


def _number_tokens(match: re.Match[str], num_open: int, mark: DecimalMark) -> tuple[Token, ...]:
    start, end, suffix = match.start(), match.end(), match["suffix"]
    text, size = match["number"], match["size"]
    if text.isdecimal() and len(text) <= MAX_DIGITS and not suffix and not size:
        return (Token("number", text, start, end, Fraction(int(text))),)
    if suffix in _ORDINALS:
        return (Token("break", match.group(), start, end),)
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
    token = Token(kind, match.group(), start, end - len(suffix), value)
    if suffix and _VARIABLES.fullmatch(suffix):
        return token, Token("opaque", suffix, end - len(suffix), end)
    return (token, Token("break", suffix, end, end)) if suffix else (token,)


def _continues(run: list[Token], token: Token, text: str, after_equals: bool) -> bool:
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


def _is_prefix_sign(token: Token, text: str, after_equals: bool) -> bool:
    """Whether a minus is a sign: it is directly before a number and not after a word.

    The dash of a list ("- 5 apples") and a hyphen ("room-5") are not signs; after `=` it is one.
    """
    before = text[token.start - 1 : token.start]
    after = text[token.end : token.end + 1]
    if token.text != "-" or before.isalnum():
        return False
    return after.isdigit() or after in {"(", ".", OPAQUE} or after_equals


def _complete(run: list[Token], bounded: bool) -> list[Token]:
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
    return [*kept, Token("opaque", "", kept[-1].end, kept[-1].end)] if bounded else kept


def _expression(text: str, run: list[Token], follows: bool) -> Expression:
    start, end = run[0].start, run[-1].end
    value = run[0].value if len(run) == 1 else value_of(run)
    if value is not None and len(run) == 3 and _is_range(text, run):
        value = None
    return Expression(text[start:end], value, start, end, follows)


def _is_range(text: str, run: list[Token]) -> bool:
    """Whether it is `10-12`, or `10 - 12 hours`, rather than a difference."""
    low, sign, high = run
    if sign.text != "-" or low.value is None or high.value is None or low.value >= high.value:
        return False
    return low.end == sign.start or text[high.end : high.end + 2].strip().isalpha()
