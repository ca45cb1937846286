"""The choice, label or text that a reasonable person reads; None is several, or none."""

import pytest

from qcrd_core.data.answers import AnswerSpec, canonical, extract

CHOICE = AnswerSpec(kind="choice")
TEXT = AnswerSpec(kind="text")
PLACES = ["bank", "library", "mall", "park"]

CHOICES = [
    ("The answer is option b", "library"),
    ("The answer is option B.", "library"),
    ("The answer is choice C.", "mall"),
    ("The answer is (b).", "library"),
    ("The answer is (b) library.", "library"),
    ("The answer is b) library.", "library"),
    ("The answer is b. library.", "library"),
    ("The answer is B: library.", "library"),
    ("The answer is B - library.", "library"),
    ("The answer is B", "library"),
    ("The answer is b", "library"),
    ("The answer is: B", "library"),
    ("The answer is:\nB", "library"),
    ("The answer is **B**.", "library"),
    ("The answer is **(B)**.", "library"),
    ("The answer is **B. library**", "library"),
    ("The answer is [B].", "library"),
    ("The answer is {B}.", "library"),
    ("The answer is （B）.", "library"),  # noqa: RUF001
    ('The answer is "B".', "library"),
    (r"The answer is \boxed{B}.", "library"),
    (r"The answer is $\boxed{\text{B}}$.", "library"),
    (r"The answer is $\text{(B)}$.", "library"),
    ("The answer is C because I computed it.", "mall"),
    ("The answer is A because of money.", "bank"),
    ("The answer is C, since one shops there.", "mall"),
    ("ANSWER IS D. A is incorrect.", "park"),
    ("The correct answer is d.", "park"),
    ("The correct option is irrelevant here. The answer is D.", "park"),
    ("Answer: **D**", "park"),
    ("Answer: D\n\nExplanation: A is a place for money, B for books.", "park"),
    ("Books are lent there.\nAnswer: B", "library"),
    ("Books are lent there.\n#### B", "library"),
    (r"So we pick $\boxed{B}$", "library"),
    (r"So we pick \boxed{library} over the mall.", "library"),
    ("**Final Answer**: (C)", "mall"),
    ("I considered (A), but it is incorrect. Final answer: D.", "park"),
    ("The answer is library.", "library"),
    ("The answer is the library.", "library"),
    ("The answer is a library, not a mall.", "library"),
    ("The answer is LIBRARY", "library"),
    ("The answer is 'library'.", "library"),
    ("The answer is not B, it is D.", "park"),
    ("The answer is not the mall but the park.", "park"),
    ("The answer isn't B. It must be D.", "park"),
    ("The answer is (A) and (C).", None),
    ("The answer is both (a) and (b).", None),
    ("The answer is A or B.", None),
    ("The answer is A and B", None),
    ("The answer is A, B.", None),
    ("The answer is A/B", None),
    ("So the answer is (d) park or (b) library.", None),
    ("The answer is park or library.", None),
    ("The answer is bank, library and mall.", None),
    ("The answer is neither bank nor library.", None),
    ("The answer is none of them.", None),
    ("The answer is (e).", None),
    ("The answer is (z).", None),
    ("The answer is a school.", None),
    ("The answer is unclear.", None),
    ("The answer is I do not know.", None),
    ("The answer is (A). Wait, no. The answer is (B).", "library"),
    ("The answer is (A). Sorry, I meant (B).", "library"),
    ("The answer is (A). Next: The answer is (B).", "bank"),
    ("Not (a). It must be (b).", "library"),
    ("(a) is wrong, so (b).", "library"),
    ("It is (b). (a) is wrong.", "library"),
    ("It is (b), as (a) cannot be right.", "library"),
    ("One borrows books there.\n\nB", "library"),
    ("One borrows books there.\n\nB.", "library"),
    ("One borrows books there.\n\n(B)", "library"),
    ("One borrows books there.\n\n**B**", "library"),
    ("Not the mall but the library is right.", "library"),
    ("One goes to a library, not a mall.", "library"),
    ("It is the bank or the park.", None),
    ("A place with books.", None),
    ("Vitamin C helps.", None),
    ("", None),
]

WITH_CHOICES = [
    # A number in a number is no choice, and a choice that is a number is its text before an index.
    ("The answer is 15.5.", ["12", "15", "18"], None),
    ("The answer is 15.", ["12", "15", "18"], "15"),
    ("The answer is 1,200.", ["200", "1,200"], "1,200"),
    ("The answer is 115.", ["15", "5"], None),
    ("The answer is -5.", ["5", "-5"], "-5"),
    ("The answer is 50%.", ["50%", "25%"], "50%"),
    ("The answer is b", ["b", "c"], "b"),
    ("The answer is (b)", ["b", "c"], "c"),
    ("The answer is children’s museum.", ["children's museum", "zoo"], "children's museum"),  # noqa: RUF001
    ("The answer is cafe\u0301.", ["café", "bar"], "café"),
    ("The answer is polish.", ["Polish", "polish"], "polish"),
    ("The answer is Polish.", ["Polish", "polish"], "Polish"),
    ("The answer is new  york.", ["New York", "York"], "New York"),
    ("The answer is department store.", ["store", "department store"], "department store"),
    ("The answer is vitamin C.", ["vitamin A", "vitamin C"], "vitamin C"),
    ("The answer is all of the above.", ["cat", "dog", "all of the above"], "all of the above"),
    ("The answer is D) all of the above.", ["x1", "y1", "z1", "all of the above"],
     "all of the above"),
    ("The answer is 東京。", ["東京", "京都"], "東京"),
    ("The answer is True.", ["True", "False"], "True"),
    ("The answer is x = 3.", ["x = 3", "x = 4"], "x = 3"),
    ("The answer is C++.", ["C", "C++"], "C++"),
    ("The answer is the U.S. president.", ["U.S. president", "king"], "U.S. president"),
]  # fmt: skip

NLI = ("entailment", "neutral", "contradiction")
LABELS = [
    ("The answer is yes.", ("yes", "no"), "yes"),
    ("The answer is Yes, it does.", ("yes", "no"), "yes"),
    ("The answer is no.", ("yes", "no"), "no"),
    ("The answer is no, not yes.", ("yes", "no"), "no"),
    ("The answer is **No**.", ("yes", "no"), "no"),
    ("The answer is not yes.", ("yes", "no"), None),
    ("The answer is not no.", ("yes", "no"), None),
    ("The answer is yes or no.", ("yes", "no"), None),
    ("The answer is yesterday.", ("yes", "no"), None),
    ("The answer is \\boxed{yes}.", ("yes", "no"), "yes"),
    ("Answer: Yes", ("yes", "no"), "yes"),
    ("We know little.\n#### no", ("yes", "no"), "no"),
    ("Is it so? Yes.", ("yes", "no"), "yes"),
    ("The answer is maybe.", ("yes", "no", "maybe"), "maybe"),
    ("The answer is not entailment, it is neutral.", NLI, "neutral"),
    ("The answer is neither entailment nor contradiction, so neutral.", NLI, "neutral"),
    ("The answer is Entailment.", NLI, "entailment"),
    ("The answer is neutral rather than entailment.", NLI, "neutral"),
    ("The answer is entailment (not neutral).", NLI, "entailment"),
    ("The answer is neutral. Not entailment.", NLI, "neutral"),
    ("The answer is neutral or contradiction.", NLI, None),
    ("Not neutral, so contradiction.", NLI, "contradiction"),
    ("It could be neutral. It is contradiction.", NLI, "contradiction"),
    ("It can't be entailment. It is neutral.", NLI, "neutral"),
    ("It entails.", NLI, None),
    ("The answer is not entailment.", ("not_entailment", "entailment"), "not_entailment"),
    ("The answer is not_entailment.", ("not_entailment", "entailment"), "not_entailment"),
    ("The answer is not-entailment.", ("not_entailment", "entailment"), "not_entailment"),
    ("The answer is entailment.", ("not_entailment", "entailment"), "entailment"),
    ("It is not  entailment", ("entailment", "not entailment"), "not entailment"),
    ("The answer is true.", ("true", "false"), "true"),
    ("The answer is not true.", ("true", "false"), None),
    ("The answer is incorrect.", ("correct", "incorrect"), "incorrect"),
    ("The answer is very positive.", ("positive", "very positive"), "very positive"),
    ("The answer is billing issue.", ("billing_issue", "login"), "billing_issue"),
    ("The answer is 错误的。", ("正确", "错误"), "错误"),
    ("The answer is 不正确。", ("正确", "错误"), None),
    ("The answer is 1.", ("0", "1"), "1"),
    ("The answer is 10.", ("0", "1"), None),
    ("The answer is LABEL_1", ("LABEL_0", "LABEL_1"), "LABEL_1"),
]

TEXTS = [
    ("The answer is St. Louis.", "st. louis"),
    ("The answer is Dr. Smith.", "dr. smith"),
    ("The answer is J. K. Rowling.", "j. k. rowling"),
    ("The answer is Mt. Everest. It is high.", "mt. everest"),
    ("The answer is the U.S. Senate. It votes.", "the u.s. senate"),
    ("The answer is Martin Luther King Jr. of Atlanta.", "martin luther king jr. of atlanta"),
    ("The answer is 東京。", "東京"),
    ("The answer is 東京。人口が多い。", "東京"),
    ("The answer is «Paris».", "paris"),
    ("The answer is „Paris“.", "paris"),
    ("The answer is 「東京」。", "東京"),
    ("The answer is cafe\u0301.", "caf\u00e9"),
    ("The answer is ＰＡＲＩＳ.", "paris"),  # noqa: RUF001
    ("The answer is The  Nile", "the nile"),
    ('The answer is "The Nile".', "the nile"),
    ("The answer is **Paris**.", "paris"),
    ("The answer is `foo()`.", "foo()"),
    (r"The answer is \boxed{Paris}.", "paris"),
    (r"It is \boxed{\text{Paris}}.", "paris"),
    ("The answer is Paris! It is in France.", "paris"),
    ("The answer is Paris\nIt is in France.", "paris"),
    ("The answer is O’Neill.", "o'neill"),  # noqa: RUF001
    ("The answer is 3.5 km.", "3.5 km"),
    ("The answer is: Paris", "paris"),
    ("Answer: Paris", "paris"),
    ("It lies in France.\n#### Paris", "paris"),
    ("The answer is Paris. Wait, the answer is Lyon.", "lyon"),
    ("It is a river.\nThe  Nile\n", "the nile"),
    ('Therefore, the letters together are "nby".', "nby"),
    ('So the letters are "mnoo', "mnoo"),
    ("The answer is ...", None),
    ("...", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "expected"), CHOICES)
def test_choice_is_the_one_that_the_text_settles_on(text, expected):
    assert extract(text, CHOICE, PLACES).answer == expected


@pytest.mark.parametrize(("text", "choices", "expected"), WITH_CHOICES)
def test_choice_is_found_whatever_the_choices_look_like(text, choices, expected):
    assert extract(text, CHOICE, choices).answer == expected


@pytest.mark.parametrize(("text", "labels", "expected"), LABELS)
def test_label_is_the_one_that_is_not_denied(text, labels, expected):
    spec = AnswerSpec(kind="label", labels=labels)
    assert extract(text, spec, None).answer == expected


@pytest.mark.parametrize("gold", ["not yes", "yes or no"])
def test_gold_label_that_names_none_is_none(gold):
    assert canonical(gold, AnswerSpec(kind="label", labels=("yes", "no")), None) is None


@pytest.mark.parametrize(("text", "expected"), TEXTS)
def test_text_is_whole_and_without_what_surrounds_it(text, expected):
    assert extract(text, TEXT, None).answer == expected
