"""Reading an answer takes time in proportion to the text, whatever a model wrote."""

import time

import pytest

from qcrd_core.data.answers import AnswerSpec, extract

_NUMBER = AnswerSpec(kind="number", marker="The answer is")
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
}


@pytest.mark.parametrize("name", _PIECES)
def test_time_grows_with_the_text(name):
    first, piece, last = _PIECES[name]

    def seconds(length):
        text = first + piece * (length // len(piece)) + last
        times = []
        for _ in range(2):
            start = time.process_time()
            extract(text, _NUMBER, None)
            times.append(time.process_time() - start)
        return min(times)

    # Eight times the text: 8 if linear, 64 if quadratic. Below 4 ms nothing can be told apart.
    assert seconds(40_000) < 24 * max(seconds(5_000), 0.004)
