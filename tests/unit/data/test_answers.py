"""Answers are read, made canonical and compared by kind."""

import time

import pytest
from pydantic import ValidationError

from qcrd_core.data.answers import AnswerSpec, Extraction, canonical, equal, extract

NUMBER = AnswerSpec(kind="number", stop=("\nQuestion:", "Q:"))
CHOICE = AnswerSpec(kind="choice")
LABEL = AnswerSpec(kind="label", labels=("entailment", "neutral", "contradiction"))
TEXT = AnswerSpec(kind="text")
CHOICES = ["bank", "library", "department store", "mall", "New York"]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        pytest.param("7", "7", id="integer"),
        pytest.param("7.0", "7", id="trailing zero"),
        pytest.param("007", "7", id="leading zeros"),
        pytest.param("-3", "-3", id="negative"),
        pytest.param("\u22123", "-3", id="unicode minus"),
        pytest.param("-0", "0", id="negative zero"),
        pytest.param(".5", "0.5", id="no leading digit"),
        pytest.param("2.50", "2.5", id="decimal"),
        pytest.param("1,200", "1200", id="thousands"),
        pytest.param("1,234,567.80", "1234567.8", id="thousands and decimals"),
        pytest.param("1{,}200", "1200", id="latex thousands"),
        pytest.param("$1,200.50", "1200.5", id="dollars"),
        pytest.param("-$5", "-5", id="negative dollars"),
        pytest.param("\u20ac 12", "12", id="euros"),
        pytest.param("US$ 12", "12", id="currency after letters"),
        pytest.param("50%", "50", id="percent"),
        pytest.param("50 \\%", "50", id="latex percent"),
        pytest.param("12 apples", "12", id="words after"),
        pytest.param("about 12 apples", "12", id="words before"),
        pytest.param("12 apples and 3 pears", "12", id="first of two"),
        pytest.param("12.", "12", id="full stop"),
        pytest.param("**12**", "12", id="markdown"),
        pytest.param("3/4", "0.75", id="fraction that ends"),
        pytest.param("2/6", "1/3", id="fraction that does not"),
        pytest.param("-2/6", "-1/3", id="negative fraction"),
        pytest.param("1 1/2", "1.5", id="mixed number"),
        pytest.param("1\u00bd cups", "1.5", id="vulgar fraction"),
        pytest.param("1 \u2044 4", "0.25", id="fraction slash"),
        pytest.param("1.5e3", "1500", id="scientific"),
        pytest.param("1.5 \u00d7 10^3", "1500", id="power of ten"),
        pytest.param("2^3^2", "512", id="powers group right"),
        pytest.param("2**3", "8", id="python power"),
        pytest.param("\\frac{1}{2}", "0.5", id="latex fraction"),
        pytest.param("\\dfrac{1}{3}", "1/3", id="latex display fraction"),
        pytest.param("\\boxed{12}", "12", id="boxed"),
        pytest.param("\\boxed{\\frac{3}{4}}", "0.75", id="boxed fraction"),
        pytest.param("$12$", "12", id="latex dollars"),
        pytest.param("\\(12 \\text{ apples}\\)", "12", id="latex text"),
        pytest.param("3 \\times 4", "12", id="latex product"),
        pytest.param("( 84.0 / 2.0 )", "42", id="equation"),
        pytest.param("( 10.0 - ( 6.0 + 3.0 ) )", "1", id="nested equation"),
        pytest.param("( 1.0 / 3.0 )", "1/3", id="equation that does not end"),
        pytest.param("8 - (- 10)", "18", id="inner sign"),
        pytest.param("6 x 7", "42", id="letter x"),
        pytest.param("2 + 3 * 4", "14", id="precedence"),
        pytest.param("10 - 3 - 2", "5", id="left to right"),
        pytest.param("-2^2", "-4", id="sign binds looser than power"),
        pytest.param("(84 / 2", "42", id="open parenthesis"),
        pytest.param("10 * 45 = 450 seeds", "450", id="result of an equation"),
        pytest.param("87 wrappers - 35 caps = 52", "52", id="result among words"),
        pytest.param("The answer is 9.", "9", id="marker"),
        pytest.param("the  ANSWER\nis: 9", "9", id="marker in another form"),
        pytest.param("the 3rd of 5", "5", id="ordinals are no numbers"),
        pytest.param("room B12 holds 5", "5", id="names are no numbers"),
    ],
)
def test_canonical_number_has_one_text_for_each_value(raw: str, expected: str) -> None:
    assert canonical(raw, NUMBER, None) == expected


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param("", id="empty"),
        pytest.param(" \n ", id="blank"),
        pytest.param("none of them", id="words"),
        pytest.param("five", id="number word"),
        pytest.param("nan", id="nan"),
        pytest.param("inf", id="inf"),
        pytest.param("5 / 0", id="division by zero"),
        pytest.param("\\frac{1}{0}", id="latex division by zero"),
        pytest.param("1 1/0", id="mixed division by zero"),
        pytest.param("1" * 10_000, id="huge integer"),
        pytest.param("0." + "1" * 10_000, id="huge decimal"),
        pytest.param("1e99999", id="huge exponent"),
        pytest.param("9^99999", id="huge power"),
        pytest.param("9^64^64", id="tower of powers"),
        pytest.param("2^0.5", id="irrational power"),
        pytest.param("*".join(["9999999999"] * 60), id="huge product"),
        pytest.param("()", id="empty parentheses"),
        pytest.param("= + - *", id="signs alone"),
        pytest.param("\\boxed{}", id="empty box"),
        pytest.param("__import__('os')", id="code"),
    ],
)
def test_canonical_number_without_a_value_is_none(raw: str) -> None:
    assert canonical(raw, NUMBER, None) is None


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("(" * 20_000 + "1" + ")" * 20_000, id="nested"),
        pytest.param("-" * 20_000 + "1", id="signs"),
        pytest.param("1," * 10_000, id="commas"),
        pytest.param("1,111" * 5_000, id="thousands"),
        pytest.param("\\frac{" * 20_000, id="open fractions"),
        pytest.param("1 + " * 10_000, id="long sum"),
        pytest.param("The answer is " * 10_000, id="markers"),
        pytest.param("a" * 40_000, id="letters"),
        pytest.param("1.1.1." * 6_000, id="dots"),
    ],
)
def test_extract_from_hostile_text_ends_soon(text: str) -> None:
    started = time.process_time()  # another process on the core does not count
    extract(text, NUMBER, None)
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("completion", "rationale", "answer"),
    [
        pytest.param("6 * 7 = 42. The answer is 42.", "6 * 7 = 42.", "42", id="marker"),
        pytest.param("The answer is 5.\nQuestion: 8?", None, "5", id="runs on, stopped"),
        pytest.param("A. The answer is 5. Q: more. The answer is 8.", "A.", "5", id="stop wins"),
        pytest.param("A. The answer is 5. B. The answer is 8.", "A.", "5", id="first marker"),
        pytest.param(
            "B. The answer is found by adding. 3 + 4 = 7. The answer is 7.", "B.", "7", id="second"
        ),
        pytest.param(
            "A. The answer is as follows:\n3 + 4 = 7", "A.", "7", id="answer in next line"
        ),
        pytest.param("3 + 4. The answer is", "3 + 4.", None, id="cut after the marker"),
        pytest.param("3 + 4. The answer is unknown.", "3 + 4.", None, id="marker without answer"),
        pytest.param("She has 5. He has 6 pens.", "She has 5. He has 6 pens.", "6", id="last"),
        pytest.param("3 + 4 = 7 pens in 2 bags", "3 + 4 = 7 pens in 2 bags", "7", id="equals"),
        pytest.param(
            "Therefore, 102 pages in 6 days.", "Therefore, 102 pages in 6 days.", "102", id="so"
        ),
        pytest.param(
            "She sold 3 because 7 * 3 = 21.", "She sold 3 because 7 * 3 = 21.", "3", id="because"
        ),
        pytest.param("", None, None, id="empty"),
        pytest.param("No idea.", "No idea.", None, id="no number"),
    ],
)
def test_extract_number_splits_reasoning_and_answer(
    completion: str, rationale: str | None, answer: str | None
) -> None:
    found = extract(completion, NUMBER, None)
    assert (found.rationale, found.answer) == (rationale, answer)


def test_extract_without_marker_in_spec_reads_last_answer() -> None:
    spec = AnswerSpec(kind="number", marker=None)
    assert extract("The answer is 5. No, 6.", spec, None).answer == "6"


def test_extract_keeps_the_answer_as_written() -> None:
    found = extract("Half. The answer is 1,200 dollars.", NUMBER, None)
    assert found == Extraction(rationale="Half.", answer_raw="1,200", answer="1200")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        pytest.param("library", "library", id="text"),
        pytest.param(" Library. ", "library", id="text in another form"),
        pytest.param("new york", "New York", id="canonical is the listed form"),
        pytest.param("(b)", "library", id="letter in parentheses"),
        pytest.param("b)", "library", id="letter and parenthesis"),
        pytest.param("B", "library", id="capital letter"),
        pytest.param("b.", "library", id="letter and full stop"),
        pytest.param("(c) department store", "department store", id="letter and text"),
        pytest.param("it is the department  store", "department store", id="text among words"),
        pytest.param("(z)", None, id="letter out of range"),
        pytest.param("a school", None, id="article is no letter"),
        pytest.param("banking", None, id="part of a word"),
        pytest.param("", None, id="empty"),
    ],
)
def test_canonical_choice_is_the_listed_text(raw: str, expected: str | None) -> None:
    assert canonical(raw, CHOICE, CHOICES) == expected


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        pytest.param("Books are lent. The answer is (b) library.", "library", id="marker, letter"),
        pytest.param("Books are lent. The answer is b. library.", "library", id="marker, b."),
        pytest.param("The answer is library, not mall.", "library", id="first after marker"),
        pytest.param("Not (a). It must be (b).", "library", id="last letter"),
        pytest.param("One borrows books there.\n\nB", "library", id="letter on the last line"),
        pytest.param("Not the mall but the library is right.", "library", id="last choice named"),
        pytest.param("A place with books.", None, id="no choice"),
    ],
)
def test_extract_choice_takes_the_choice_meant(completion: str, answer: str | None) -> None:
    assert extract(completion, CHOICE, CHOICES).answer == answer


def test_canonical_choice_prefers_text_to_letter() -> None:
    assert canonical("b", CHOICE, ["b", "c"]) == "b"
    assert canonical("(b)", CHOICE, ["b", "c"]) == "c"


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        pytest.param("They agree. The answer is Entailment.", "entailment", id="marker"),
        pytest.param("Not neutral, so contradiction.", "contradiction", id="last label"),
        pytest.param("The answer is neutral. Not entailment.", "neutral", id="first after marker"),
        pytest.param("It entails.", None, id="no label"),
    ],
)
def test_extract_label_takes_the_label_meant(completion: str, answer: str | None) -> None:
    assert extract(completion, LABEL, None).answer == answer


def test_extract_label_prefers_the_longer_label() -> None:
    spec = AnswerSpec(kind="label", labels=("entailment", "not entailment"))
    assert extract("It is not  entailment", spec, None).answer == "not entailment"


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        pytest.param('By the river. The answer is "The Nile".', "the nile", id="marker"),
        pytest.param("It is a river.\nThe  Nile\n", "the nile", id="last line"),
        pytest.param("...", None, id="punctuation"),
    ],
)
def test_extract_text_folds_case_and_punctuation(completion: str, answer: str | None) -> None:
    assert extract(completion, TEXT, None).answer == answer


def test_equal_without_answer_is_false() -> None:
    assert equal("7", "7")
    assert not equal("7", "8")
    assert not equal(None, None)
    assert not equal("7", None)


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        pytest.param({"kind": "label"}, "labels must be given", id="label without labels"),
        pytest.param({"kind": "number", "labels": ["a"]}, "only then", id="labels without label"),
        pytest.param({"kind": "label", "labels": ["a", "A "]}, "must differ", id="same labels"),
        pytest.param({"kind": "number", "stop": [""]}, "non-empty", id="empty stop"),
        pytest.param({"kind": "sum"}, "'number'", id="unknown kind"),
        pytest.param({"kind": "number", "makrer": "x"}, "not permitted", id="unknown key"),
    ],
)
def test_answer_spec_with_a_broken_rule_is_refused(settings: dict[str, object], rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        AnswerSpec.model_validate(settings)


@pytest.mark.parametrize(
    ("text", "spec", "whole", "cut"),
    [
        ("3 + 4 = 7, and 7 * 1", NUMBER, "7", None),
        ("3 + 4 = 7. The answer is 7. Let us", NUMBER, "7", "7"),
        ("3 + 4 = 7. The answer is 1", NUMBER, "1", None),
        # The first is taken back, and what takes its place is not known.
        ("The answer is 7. Wait. The answer is 12", NUMBER, "12", None),
        ("The answer is 7. More. The answer is 12", NUMBER, "7", "7"),
        ("The answer is 7\nQuestion: Tom has 3", NUMBER, "7", "7"),
        ("It could be neutral or", LABEL, "neutral", None),
        ("A bank, or a mall. The answer is", CHOICE, None, None),
    ],
)
def test_extract_of_a_text_that_was_cut_trusts_only_a_whole_sentence(text, spec, whole, cut):
    choices = CHOICES if spec.kind == "choice" else None
    assert extract(text, spec, choices).answer == whole
    assert extract(text, spec, choices, is_cut=True).answer == cut
