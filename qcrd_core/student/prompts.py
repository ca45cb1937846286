r"""How a student reads a question: one text, made of a prefix and the question.

A T5 reads prefix and question. A causal model continues its prompt, so something must separate the
two: its tokenizer's chat template or, if it has none, a line break. Which one is written into the
run's tokenizer, so that a run from before there was a choice goes on as it began: there the target
follows the question directly. So it does for a model from scratch, whose own tokenizer splits at
every word.

    T5, from scratch, runs from before    predict: How many now?
    causal with a chat template           <|user|>predict: How many now?<|assistant|>
    other causal models                   predict: How many now?\n
"""

import json
from collections.abc import Sequence
from typing import Any

import polars as pl
from jinja2 import TemplateError

from qcrd_core.errors import DataError

_FORM, _CHAT, _LINE = "qcrd_prompt", "chat_template", "line"


def choose_prompt_form(tokenizer: Any, model: Any) -> None:
    """Note in a new run's tokenizer how its pretrained student reads questions.

    Args:
        tokenizer: The student's; changed. It keeps the note when it is saved.
        model: The student.
    """
    if not model.config.is_encoder_decoder:
        tokenizer.init_kwargs[_FORM] = _CHAT if tokenizer.chat_template else _LINE


def write_prompts(tokenizer: Any, prefix: str, questions: pl.DataFrame) -> list[str]:
    """Write the prompts of questions.

    Args:
        tokenizer: The student's.
        prefix: Text before the question; in a conversation, before its last turn.
        questions: Columns question and, if some are conversations, messages.

    Returns:
        One text per question. Its special tokens are in it already.

    Raises:
        DataError: If the chat template refuses a conversation.
    """
    form = tokenizer.init_kwargs.get(_FORM)
    texts = questions["question"].to_list()
    if form != _CHAT:
        end = "\n" if form == _LINE else ""
        return [f"{prefix}{text}{end}" for text in texts]
    turns: Sequence[str | None] = [None] * len(texts)
    if "messages" in questions.columns:
        turns = questions["messages"].to_list()
    return [
        _templated(tokenizer, prefix, text, messages)
        for text, messages in zip(texts, turns, strict=True)
    ]


def _templated(tokenizer: Any, prefix: str, text: str, messages: str | None) -> str:
    asked = [{"role": "user", "content": text}] if messages is None else json.loads(messages)
    asked[-1]["content"] = prefix + asked[-1]["content"]
    try:
        prompt: str = tokenizer.apply_chat_template(
            asked, tokenize=False, add_generation_prompt=True
        )
    except TemplateError as error:
        roles = ", ".join(turn["role"] for turn in asked)
        msg = (
            f"The student's chat template refuses turns of {roles}: {error}. Choose another "
            "student.model, or remove such turns from the conversations."
        )
        raise DataError(msg) from error
    return prompt
