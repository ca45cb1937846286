"""Questions and rationales become token ids: nothing is cut, and what is left out is counted."""

import json

import polars as pl
import pytest

from qcrd_core.config.models import ScratchWeights, StudentSection
from qcrd_core.student.prompts import choose_prompt_form
from qcrd_core.student.tokenizer import encode_texts, make_tokenizer
from qcrd_core.training.batches import make_examples, skip_shared_tokens
from tests.support.tiny_models import tiny_llama

TOKENIZER = make_tokenizer(["explain: predict: What is 1 plus 2? 1 + 2 = 3."] * 2, 100)
END = TOKENIZER.eos_token_id
SCORES = ["question_id", "polarity", "rationale_weight", "rationale"]
LABELS = pl.DataFrame(
    {"question_id": ["b", "a"], "question": ["What is 2?", "What is 1?"], "label": ["2", "1"]}
)


def _examples(rationales, *, end=True, max_target_tokens=30):
    scores = pl.DataFrame(
        rationales,
        schema=SCORES,
        orient="row",
    )
    student = StudentSection(model=ScratchWeights(), max_target_tokens=max_target_tokens)
    return make_examples(LABELS, scores, TOKENIZER, student, end=end)


def test_make_examples_gives_each_question_its_own_rationales_in_order():
    rows = [("b", "positive", 0.9, "1 + 1"), ("b", "negative", 0.2, "1 + 2"), ("c", "x", 0.0, "3")]
    (first, second), num_left_out = _examples(rows)
    assert (first.question_id, second.question_id, num_left_out) == ("a", "b", 0)
    assert first.rationales == ()
    assert [(r.is_positive, r.weight) for r in second.rationales] == [
        (True, 0.9),
        (False, 0.2),
    ]


def test_make_examples_leaves_out_rationales_that_are_too_long_and_counts_them():
    rows = [("a", "positive", 0.9, "1 " * 40), ("a", "positive", 0.8, "1")]
    (first, _), num_left_out = _examples(rows)
    assert num_left_out == 1
    assert [r.weight for r in first.rationales] == [0.8]


def test_negative_counts_from_the_result_of_its_false_step():
    rows = [
        ("a", "negative", 1.0, "1 + 2 = 3. 1 + 1 = 3."),
        ("a", "negative", 1.0, "1 + 2 = 3."),
        ("a", "positive", 1.0, "1 + 1 = 3."),
        ("a", "negative", 1.0, "1+1=3."),
    ]
    scores = pl.DataFrame(rows, schema=SCORES, orient="row")
    student = StudentSection(model=ScratchWeights(), max_target_tokens=30)
    ((example, _), _) = make_examples(
        LABELS, scores, TOKENIZER, student, end=True, find_false_steps=True
    )
    wrong, right, positive, dense = example.rationales
    assert TOKENIZER.decode(dense.ids[dense.first :], skip_special_tokens=True).strip() == "3."
    assert TOKENIZER.decode(wrong.ids[wrong.first :], skip_special_tokens=True).strip() == "3."
    assert (right.first, positive.first) == (0, 0)
    (skipped, _), _ = skip_shared_tokens([example, example])
    assert [r.first for r in skipped.rationales] == [wrong.first, 2, 0, dense.first]


@pytest.mark.parametrize("end", [True, False], ids=["encoder", "causal"])
def test_make_examples_ends_targets_always_and_prompts_where_asked(end):
    (first, _), _ = _examples([("a", "positive", 0.9, "1 + 2")], end=end)
    assert [ids.count(END) for ids in (first.label_ids, first.rationales[0].ids)] == [1, 1]
    assert [ids[-1] == END for ids in (first.predict_ids, first.explain_ids)] == [end, end]
    assert TOKENIZER.decode(first.predict_ids, skip_special_tokens=True).strip() == (
        StudentSection(model=ScratchWeights()).predict_prefix + "What is 1?"
    )


def test_make_examples_of_conversations_follows_the_chat_template_of_a_causal_student():
    tokenizer = make_tokenizer(["explain: predict: user: What is 1? 2"] * 2, 100)
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}"
    choose_prompt_form(tokenizer, tiny_llama())
    turns = [json.dumps([{"role": "user", "content": text}]) for text in LABELS["question"]]
    labels = LABELS.with_columns(messages=pl.Series(turns))
    scores = pl.DataFrame(schema=dict.fromkeys(SCORES, pl.String))

    ((first, _), _) = make_examples(
        labels, scores, tokenizer, StudentSection(model=ScratchWeights()), end=False
    )

    shown = [tokenizer.decode(ids).strip() for ids in (first.predict_ids, first.explain_ids)]
    assert shown == ["user: predict: What is 1?", "user: explain: What is 1?"]


def test_encode_texts_of_none_is_empty():
    assert encode_texts(TOKENIZER, [], end=True) == []
