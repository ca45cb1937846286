"""What holds for every answer and every text."""

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from qcrd_core.data.answers import AnswerSpec, canonical, extract

NUMBER = AnswerSpec(kind="number", stop=("Q:",))
CHOICE = AnswerSpec(kind="choice")
LABEL = AnswerSpec(kind="label", labels=("yes", "no"))
TEXT = AnswerSpec(kind="text")
# A busy machine is no failure of the parser.
UNTIMED = settings(deadline=None)
SPECS = st.sampled_from([NUMBER, CHOICE, LABEL, TEXT])
NUMBERS = st.fractions(min_value=-(10**9), max_value=10**9, max_denominator=10**6)
HOSTILE = st.text(alphabet="0123456789.,+-*/^()= $%\\{}frac xXeE\n", max_size=80) | st.text()


@UNTIMED
@given(HOSTILE, SPECS)
def test_extract_of_any_text_never_raises(text: str, spec: AnswerSpec) -> None:
    found = extract(text, spec, ["cat", "dog"])
    assert (found.answer is None) == (found.answer_raw is None)
    assert found.rationale is None or found.rationale.strip()


@UNTIMED
@given(HOSTILE, SPECS)
def test_canonical_is_idempotent(text: str, spec: AnswerSpec) -> None:
    once = canonical(text, spec, ["cat", "dog"])
    assert once is None or canonical(once, spec, ["cat", "dog"]) == once


@UNTIMED
@given(NUMBERS)
def test_canonical_number_keeps_the_value(value: Fraction) -> None:
    text = canonical(f"{value.numerator}/{value.denominator}", NUMBER, None)
    assert text is not None
    assert Fraction(text) == value


@UNTIMED
@given(NUMBERS, st.integers(min_value=1, max_value=1000))
def test_canonical_number_is_the_same_for_expanded_fractions(value: Fraction, factor: int) -> None:
    plain = canonical(f"{value.numerator}/{value.denominator}", NUMBER, None)
    expanded = f"( {value.numerator * factor} / {value.denominator * factor} )"
    assert canonical(expanded, NUMBER, None) == plain


@UNTIMED
@given(st.integers(min_value=-(10**12), max_value=10**12))
def test_canonical_number_ignores_how_an_integer_is_written(value: int) -> None:
    forms = [f"{value}", f"{value:,}", f"{value}.0", f"{value} apples", f"\\boxed{{{value}}}"]
    assert {canonical(form, NUMBER, None) for form in forms} == {str(value)}


@UNTIMED
@given(
    st.recursive(
        st.integers(min_value=0, max_value=99).map(str),
        lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner).map(
            lambda parts: f"( {' '.join(parts)} )"
        ),
        max_leaves=6,
    )
)
def test_canonical_equation_has_the_value_python_gives(equation: str) -> None:
    words = [f"Fraction({word})" if word.isdigit() else word for word in equation.split()]
    try:
        expected = eval(" ".join(words), {"Fraction": Fraction})
    except ZeroDivisionError:
        expected = None
    text = canonical(equation, NUMBER, None)
    assert (None if text is None else Fraction(text)) == expected


@UNTIMED
@given(st.text(alphabet="abc 123.,", max_size=40), st.integers(min_value=0, max_value=999))
def test_extract_reads_what_the_marker_points_at(rationale: str, value: int) -> None:
    found = extract(f"{rationale} The answer is {value}. Q: The answer is 1000.", NUMBER, None)
    assert found.answer == str(value)
    assert found.rationale == (rationale.rstrip(" ,").strip() or None)
