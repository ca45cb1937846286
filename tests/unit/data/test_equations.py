"""The first false equation of a rationale, and what is not judged."""

import pytest

from qcrd_core.data.equations import false_step


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("5 + 3 = 8. 8 / 4 = 3. The answer is 3.", " 3. The answer is 3."),
        ("x = 5 + 3 = 9", " 9"),
        (r"\frac{1}{2} + 1 = 2", " 2"),
        (r"7 + 5 \approx 13", " 13"),
        ("7 + 5 ≈ 13", " 13"),
        ("12 - 5 = 7 apples, 7 × 2 = 15", " 15"),  # noqa: RUF001
        ("10 / 3 = 3.43", " 3.43"),
        ("5 + 3 = 4 + 5", " 4 + 5"),
        ("2 * 3 = 6 + 1 = 8", " 8"),
        ("(4 + 2) * 3 = 14", " 14"),
        ("<<7*2=14>>14 pens. 14 - 2 = 11", " 11"),
    ],
)
def test_false_step_is_found_behind_its_equals_sign(text, result):
    found = false_step(text)
    assert found is not None
    assert text[found:] == result


@pytest.mark.parametrize(
    "text",
    [
        "5 + 3 = 8. 8 / 4 = 2.",
        "10 / 3 = 3.33",
        "2 * 3 = 6 + 1 = 7",
        "5 + 3 = 4 + 4",
        "5 apples + 3 = 8",
        "5 apples + 3 apples = 9 apples",
        "20% * 50 = 10",
        "He has 3 = three",
        "x = 4, y = 5",
        "1 / 0 = 3",
        "no equation",
        "",
        "=" * 50,
    ],
)
def test_right_equations_and_what_cannot_be_read_are_no_false_steps(text):
    assert false_step(text) is None
