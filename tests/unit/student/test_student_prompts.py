"""What a student reads: its prefix, the question, and what separates both from the target."""

import json
from types import SimpleNamespace

import polars as pl
import pytest

from qcrd_core.errors import DataError
from qcrd_core.student.prompts import choose_prompt_form, write_prompts
from qcrd_core.student.tokenizer import load_tokenizer, make_tokenizer

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi."},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "Where is Ann?"},
]
QUESTIONS = pl.DataFrame({"question": ["How many now?", "one text"],
                          "messages": [None, json.dumps(TURNS)]})  # fmt: skip
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
REFUSING = "{% if messages[0].role == 'system' %}{{ raise_exception('No system.') }}{% endif %}"


def tokenizer_of(folder, *, is_encoder_decoder, template=None):
    """The tokenizer of a run, as its later jobs load it."""
    tokenizer = make_tokenizer(["How many now?", "Be brief."], 60)
    tokenizer.chat_template = template
    config = SimpleNamespace(is_encoder_decoder=is_encoder_decoder)
    choose_prompt_form(tokenizer, SimpleNamespace(config=config))
    tokenizer.save_pretrained(folder)
    return load_tokenizer(folder)


@pytest.mark.parametrize("template", [None, TEMPLATE], ids=["plain", "template"])
def test_prompt_of_a_t5_is_prefix_and_text(tmp_path, template):
    tokenizer = tokenizer_of(tmp_path, is_encoder_decoder=True, template=template)
    found = write_prompts(tokenizer, "predict: ", QUESTIONS)
    assert found == ["predict: How many now?", "predict: one text"]


def test_prompt_of_a_causal_student_ends_with_a_line_break(tmp_path):
    tokenizer = tokenizer_of(tmp_path, is_encoder_decoder=False)
    found = write_prompts(tokenizer, "predict: ", QUESTIONS)
    assert found == ["predict: How many now?\n", "predict: one text\n"]


def test_prompt_of_a_causal_student_follows_its_chat_template(tmp_path):
    tokenizer = tokenizer_of(tmp_path, is_encoder_decoder=False, template=TEMPLATE)
    assert write_prompts(tokenizer, "predict: ", QUESTIONS) == [
        "<user>predict: How many now?<assistant>",
        "<system>Be brief.<user>Hi.<assistant>Hello!<user>predict: Where is Ann?<assistant>",
    ]
    assert (
        write_prompts(tokenizer, "", QUESTIONS.select("question"))[1] == "<user>one text<assistant>"
    )


def test_prompt_of_a_run_from_before_stays_as_it_began(tmp_path):
    tokenizer = make_tokenizer(["How many now?"], 60)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(tmp_path)
    found = write_prompts(load_tokenizer(tmp_path), "predict: ", QUESTIONS)
    assert found == ["predict: How many now?", "predict: one text"]


def test_chat_template_that_refuses_a_conversation_is_named(tmp_path):
    tokenizer = tokenizer_of(tmp_path, is_encoder_decoder=False, template=REFUSING)
    with pytest.raises(DataError, match=r"refuses turns of system, user, assistant, user: No sys"):
        write_prompts(tokenizer, "predict: ", QUESTIONS)
