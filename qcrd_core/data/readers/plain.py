r"""Writes LaTeX, Unicode signs and digits, currency and Markdown as plain ASCII arithmetic.

    plain(r"2\frac{1}{3}")        "2 1/3"
    plain("2·10⁸")                "2*10^(8)"
    plain("$5k")                  "5 thousand"

What is no rational number becomes `OPAQUE` (π, an unknown LaTeX command), so that what is around it
is not taken for a number.
"""

import re
import unicodedata

OPAQUE = "π"
"""Stands for a value that is no rational number."""

# Without one of these characters, or one of these words, a text is plain already.
_ODD = re.compile(r"[^A-Za-z0-9 .,;:?!'\"()+\-/=\n]|[0-9)]\s?[xX]|inus|egative|sqrt")
_SIGNS = str.maketrans(
    {
        **dict.fromkeys("−–‒﹣－", "-"),  # noqa: RUF001  (the signs models write)
        **dict.fromkeys("×⋅·∙✕✖＊", "*"),  # noqa: RUF001
        **dict.fromkeys("÷∕⁄／", "/"),  # noqa: RUF001
        **dict.fromkeys("（［", "("),  # noqa: RUF001
        **dict.fromkeys("）］", ")"),  # noqa: RUF001
        **dict.fromkeys("≈≡＝≃", "="),  # noqa: RUF001
        **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff°", None),
        **dict.fromkeys("\u00a0\u2009\u202f\u2007\u3000％", " "),  # noqa: RUF001
        **dict.fromkeys("∞ℯ", OPAQUE),  # noqa: RUF001
        "±": OPAQUE,
        "’": "'",  # noqa: RUF001
        "，": ",",  # noqa: RUF001
        "．": ".",  # noqa: RUF001
        "：": ":",  # noqa: RUF001
        "＋": "+",  # noqa: RUF001
        "＄": "$",  # noqa: RUF001
        "٫": ".",  # noqa: RUF001
        "٬": ",",
    }
)
_OTHER_DIGITS = re.compile(r"[^\D0-9]")
_SPACED_GROUP = re.compile(r"(?<=[0-9])[\u00a0\u2009\u202f\u2007](?=[0-9]{3}(?![0-9]))")
_RAISED = re.compile("[⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_RAISED_DIGITS = str.maketrans("⁺⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "+-0123456789")
_VULGAR = re.compile("([0-9] ?)?([¼½¾⅐-⅞])")
_ROOT = re.compile(r"(?:√|\bsqrt)\s?+([0-9]++(?:\.[0-9]++)?+|\([^()]*+\))")
_LATEX: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\!|\\(?:left|right|displaystyle|[Bb]igg?[lr]?)(?![A-Za-z])", ""),
        (r"(?<=[0-9])(?:\\[,;: ]|~)(?=[0-9]{3}(?![0-9]))", "_"),
        (r"\{,\}", ","),
        (r"\^\s?(?:\\circ|\{\\circ\})|\\(?:degree|circ)(?![A-Za-z])|\\\$", ""),
        (r"\\%|\\[,;: ()\[\]\\]|\\q?quad(?![A-Za-z])|~", " "),
        (r"\\(?:times|cdot|ast)(?![A-Za-z])", "*"),
        (r"\\div(?![A-Za-z])", "/"),
        (r"\\(?:approx|equiv|simeq)(?![A-Za-z])", "="),
        (r"\\(?:Rightarrow|rightarrow|implies|to|therefore)(?![A-Za-z])", ";"),
        (r"\\(?:leq?|leqslant|lt)(?![A-Za-z])|\\(?:geq?|geqslant|gt|neq?)(?![A-Za-z])", "<"),
        (r"\\\{", "["),
        (r"\\\}", "]"),
        (
            r"(?<=[0-9])\s?\\[dtc]?frac\s*+(?:\{\s?([0-9]++)\s?\}|([0-9]))"
            r"\s*+(?:\{\s?([0-9]++)\s?\}|([0-9]))",
            r" \1\2/\3\4",
        ),
    )
)
# One level of braces per pass, innermost first, so that nesting needs no recursion.
_PART = r"\s*+(?:\{([^{}]*+)\}|([0-9A-Za-z]))"
_BRACED: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(rf"\\[dtc]?frac{_PART}{_PART}"), r"((\1\2)/(\3\4))"),
    (re.compile(rf"\\sqrt\s?\[([0-9])\]{_PART}"), r"((\2\3)^(1/\1))"),
    (re.compile(rf"\\sqrt{_PART}"), r"((\1\2)^(1/2))"),
    (
        re.compile(
            r"\\(?:boxed|fbox|text|textrm|textbf|textit|mathrm|mathbf|mathit|mbox|operatorname)"
            r"\s?\{([^{}]*+)\}"
        ),
        r" \1 ",
    ),
)
_MAX_NESTING = 8
_COMMAND = re.compile(r"\\[A-Za-z]++(?:_\{[^{}]*+\}|_[A-Za-z0-9])?+")
_BRACES = str.maketrans("{}", "()")
_SQUARE = str.maketrans("[]", "()")
_BIG_MONEY = re.compile(r"[$€£¥₹]\s?([0-9][0-9.,]*+)\s?([kKmMbB])n?(?![A-Za-z])")
_BIG = {"k": "thousand", "m": "million", "b": "billion"}
CALCULATOR = re.compile(r"<<[^<>\n]*+>>")
"""GSM8K's notes of what a calculator gave, such as `<<3*4=12>>`; the result follows them."""
_MARKUP: tuple[tuple[re.Pattern[str], str], ...] = (
    (CALCULATOR, " "),
    (re.compile(r"</?[A-Za-z_]{1,20}>"), " "),
    (re.compile(r"(?<=[A-Za-z])[$€£¥₹]"), " "),
    (re.compile(r"[$€£¥₹]\s?"), ""),
    (re.compile(r"(?<=[0-9])\*\*(?=[0-9])"), "^"),
    (re.compile(r"\*\*|__|`"), " "),
)
_TIMES = re.compile(r"(?<=[0-9)])(\s?)[xX](?=\s?[0-9(])")
# "minus 5" and "10 minus 5", but not "the number minus 5": its value is unknown.
_MINUS = re.compile(
    r"(\bnegative |(?:^\s*|[=:(0-9]\s?|\b(?:is|be|was|to|of|at|equals|get|gives) )minus )"
    r"(?=[0-9.(])",
    re.IGNORECASE,
)


def plain(text: str) -> str:
    """Write a text as plain arithmetic.

    Args:
        text: Any text.

    Returns:
        Text with ASCII digits and signs, except `OPAQUE`; line breaks are kept.
    """
    if _ODD.search(text) is None:
        return text
    if "\\" in text:
        text = _without_latex(text)
    if not text.isascii():
        text = _in_ascii(text)
    if "{" in text and ("^{" in text or "{,}" in text):
        text = text.replace("{,}", ",").translate(_BRACES)
    text = _BIG_MONEY.sub(lambda match: f"{match[1]} {_BIG[match[2].lower()]}", text)
    for pattern, replacement in _MARKUP:
        text = pattern.sub(replacement, text)
    text = _ROOT.sub(r"((\1)^(1/2))", text.replace("%", " "))
    text = text.translate(_SQUARE) if "[" in text else text
    return _MINUS.sub(_signed, _TIMES.sub(r"\1*", text))


def _signed(match: re.Match[str]) -> str:
    before = match[1].lower().removesuffix("minus ").removesuffix("negative ")
    return f"{before}-"


def _without_latex(text: str) -> str:
    for pattern, replacement in _LATEX:
        text = pattern.sub(replacement, text)
    for _ in range(_MAX_NESTING):
        before = text
        for pattern, replacement in _BRACED:
            text = pattern.sub(replacement, text)
        if text == before:
            break
    return _COMMAND.sub(OPAQUE, text).translate(_BRACES)


def _in_ascii(text: str) -> str:
    text = _SPACED_GROUP.sub("_", text).translate(_SIGNS)
    text = _OTHER_DIGITS.sub(lambda match: str(unicodedata.decimal(match[0])), text)
    text = _VULGAR.sub(_vulgar, text)
    return _RAISED.sub(lambda match: f"^({match[0].translate(_RAISED_DIGITS)})", text)


def _vulgar(match: re.Match[str]) -> str:
    fraction = unicodedata.normalize("NFKC", match[2]).replace("⁄", "/")  # noqa: RUF001
    return f"{match[1].strip()} {fraction}" if match[1] else fraction
