"""Reading an answer takes time in proportion to the text, whatever a model wrote."""

import time

import pytest

from qcrd_core.data.answers import AnswerSpec, extract

_NUMBER = AnswerSpec(kind="number", marker="The answer is")
_OTHERS = {
    "choice": AnswerSpec(kind="choice"),
    "label": AnswerSpec(kind="label", labels=("yes", "no", "not sure")),
    "text": AnswerSpec(kind="text"),
    "labels": AnswerSpec(kind="labels", labels=("yes", "no", "not sure")),
    "json": AnswerSpec(kind="json"),
}
_PIECES = {
    "ordinals": ("1", ",111", "th"),
    "ordinal-decimals": ("1", ",111", ".5th"),
    "digits": ("", "1", "th"),
    "groups-that-do-not-end": ("1", ",111", "1"),
    "fractions": ("", r"\frac{1", ""),
    "nested-fractions": (r"", r"\frac{", "}" * 8),
    "braces": ("", "{", ""),
    "boxes": ("", r"\boxed{1", "}"),
    "brackets": ("", "(", ""),
    "signs": ("1", "+-", "1"),
    "sum": ("1", "+1", ""),
    "product": ("2", "*9", ""),
    "powers": ("2", "^9", ""),
    "equals": ("1", "=1", ""),
    "mixed": ("", "1 1/2 ", ""),
    "spaces": ("1", " ", "x"),
    "markers": ("", "The answer is ", ""),
    "stars": ("", "**", "1"),
    "dollars": ("", "a$", "1"),
    "exponents": ("1", "e1", ""),
    "times": ("1", "x1", ""),
    "lines": ("", "\n", "1"),
    "groups-of-spaces": ("1", " 111", " 11"),
    "apostrophes": ("1", "'1", "x"),
    "points": ("1", ".1", ""),
    "sizes": ("1", " million", "x"),
    "ratios": ("1", ":1", "x"),
    "dates": ("", "2024-05-", "x"),
    "roots": ("", "sqrt(", "4"),
    "latex-roots": ("", r"\sqrt[3]{", "4"),
    "commands": ("", r"\a_{", "4"),
    "variables": ("", "x+", "1"),
    "pairs": ("(1", ",1", ""),
    "remarks": ("5 (", "ab ", "6"),
    "remarks-closed": ("5", " (6 ab)", ""),
    "abbreviations": ("", "St. ", "5"),
    "usual-marks": ("", "Answer: ", "5"),
    "corrections": ("", "The answer is 5. Wait. ", ""),
    "corrections-cut": ("The answer is 5", ". Wait, no", ""),
    "dangling": ("", "so, ", "the answer is 5"),
    "fractions-of-one": ("", "½", ""),
    "raised": ("2", "⁸", ""),
    "tags": ("", "<b>", "5"),
    "calculators": ("", "<<5", "5"),
    "thoughts": ("", "</think>", "5"),
}
_NAMED = {
    "letters": ("", "(a) ", ""),
    "joined": ("The answer is", " (a) and (b),", ""),
    "negations": ("The answer is", " not", " yes"),
    "names": ("", "yes ", ""),
    "other-names": ("", "yes no ", ""),
    "brackets": ("", "(", "a)"),
    "options": ("", "option ", "b"),
    "quotes": ("", '"', "x"),
    "bold": ("", "**a", ""),
    "objects": ("", '{"a": ', "1"),
    "documents": ("", '{"a": 1} ', ""),
    "points": ("The answer is:", "\n- yes", ""),
}


@pytest.mark.parametrize("name", _PIECES)
def test_time_grows_with_the_text(name):
    _check_linear(_PIECES[name], _NUMBER)


@pytest.mark.parametrize("kind", _OTHERS)
@pytest.mark.parametrize("name", _NAMED)
def test_time_grows_with_the_text_of_other_kinds(name, kind):
    _check_linear(_NAMED[name], _OTHERS[kind])


def _check_linear(pieces, spec):
    first, piece, last = pieces

    def seconds(length):
        text = first + piece * (length // len(piece)) + last
        times = []
        for _ in range(2):
            start = time.process_time()
            extract(text, spec, ["cat", "dog", "yes"])
            times.append(time.process_time() - start)
        return min(times)

    # Eight times the text: 8 if linear, 64 if quadratic. Below 4 ms nothing can be told apart.
    assert seconds(40_000) < 24 * max(seconds(5_000), 0.004)
