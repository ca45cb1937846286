"""Prompts are exactly what is written here."""

from qcrd_core.data.prompts import prompt_identity, render_messages, render_text
from qcrd_core.data.spec import DatasetSpec, load_spec

SPEC = DatasetSpec.model_validate(
    {
        "name": "mine",
        "source": {"type": "files", "train": "train.jsonl"},
        "answer": {"kind": "number", "stop": ["\nQ:"]},
        "prompt": {
            "instruction": "Think.",
            "demonstrations": [
                {"question": "1 + 1?", "rationale": "One more.", "answer": "2"},
                {"question": "2 + {x}?", "rationale": "Two more.", "answer": "4"},
            ],
            "question_template": "Q: {question}\nA:",
        },
    }
)


def test_render_messages_puts_instruction_and_demonstrations_first() -> None:
    assert render_messages(SPEC, "3 + {y}?") == [
        {"role": "user", "content": "Think.\n\nQ: 1 + 1?\nA:"},
        {"role": "assistant", "content": "One more. The answer is 2."},
        {"role": "user", "content": "Q: 2 + {x}?\nA:"},
        {"role": "assistant", "content": "Two more. The answer is 4."},
        {"role": "user", "content": "Q: 3 + {y}?\nA:"},
    ]


def test_render_text_ends_where_the_completion_begins() -> None:
    assert render_text(SPEC, "3 + {y}?") == (
        "Think.\n\n"
        "Q: 1 + 1?\nA: One more. The answer is 2.\n\n"
        "Q: 2 + {x}?\nA: Two more. The answer is 4.\n\n"
        "Q: 3 + {y}?\nA:"
    )


def test_render_of_word_problems_is_the_question_alone() -> None:
    spec = load_spec("word_problems")
    prompt = "Question: How many?\nAnswer:"
    assert render_messages(spec, "How many?") == [{"role": "user", "content": prompt}]
    assert render_text(spec, "How many?") == prompt


def test_render_shares_everything_before_the_question() -> None:
    first, second = (render_text(SPEC, question) for question in ("A?", "B?"))
    assert first.removesuffix("A?\nA:") == second.removesuffix("B?\nA:")


def test_prompt_identity_changes_with_anything_that_reaches_the_model() -> None:
    changes = [
        {"prompt": SPEC.prompt.model_copy(update={"instruction": "Think hard."})},
        {"prompt": SPEC.prompt.model_copy(update={"demonstrations": ()})},
        {"prompt": SPEC.prompt.model_copy(update={"question_template": "{question}"})},
        {"answer": SPEC.answer.model_copy(update={"stop": ()})},
        {"answer": SPEC.answer.model_copy(update={"marker": "Answer:"})},
    ]
    identities = [prompt_identity(SPEC.model_copy(update=change)) for change in changes]
    assert all(identity != prompt_identity(SPEC) for identity in identities)


def test_prompt_identity_ignores_where_questions_come_from() -> None:
    other = SPEC.model_copy(update={"source": load_spec("svamp").source, "name": "other"})
    assert prompt_identity(other) == prompt_identity(SPEC)
