"""Conversations: questions, splits and prompts, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from qcrd_core.config.run import DataSection, validate_config
from qcrd_core.data.chats import chat_rows
from qcrd_core.data.load import load_questions, questions_hash
from qcrd_core.data.prompts import prompt_identity
from qcrd_core.data.spec import DatasetSpec
from qcrd_core.errors import DataError
from qcrd_core.ids import content_hash
from qcrd_core.student.metadata import StudentMetadata
from qcrd_core.teacher.rendering import render

DATA = DataSection(dataset="chat.yaml", label="majority")


def turns(*texts: str, system: str | None = None) -> list[dict[str, str]]:
    """User and assistant in turn, the user first."""
    roles = ("user", "assistant")
    first = [] if system is None else [{"role": "system", "content": system}]
    return [*first, *({"role": roles[n % 2], "content": text} for n, text in enumerate(texts))]


def spec_of(folder: Path, rows: list[dict[str, Any]], **changes: Any) -> DatasetSpec:
    path = folder / "chat.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    base = {
        "name": "chat",
        "source": {"type": "chat", "train": path},
        "answer": {"kind": "text"},
    }
    return DatasetSpec.model_validate({**base, **changes})


LONG = turns("Hi.", "Hello!", "Where is Ann?", "In Rome.", system="Be brief.")
ROWS = [
    {"messages": LONG},
    *({"messages": turns(f"What is {n}?", f"It is {n}.")} for n in range(9)),
]


def test_chats_of_both_forms_are_the_same_questions() -> None:
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    other = [{"from": names[turn["role"]], "value": turn["content"]} for turn in LONG]
    parts = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in LONG]
    (row, again, in_parts) = (
        chat_rows([given], "f")[0]
        for given in ({"messages": LONG}, {"conversations": other}, {"messages": parts})
    )
    wanted = "System: Be brief.\n\nUser: Hi.\n\nAssistant: Hello!\n\nUser: Where is Ann?"
    for found in (row, again, in_parts):
        assert (found["question"], found["gold_answer"]) == (wanted, "In Rome.")
        assert json.loads(found["messages"]) == LONG[:-1]


def test_chats_of_one_turn_are_that_text_and_without_an_answer_have_no_gold(tmp_path: Path) -> None:
    rows = [*ROWS, {"messages": turns("Who?")}]
    frame = load_questions(spec_of(tmp_path, rows), DATA)
    row = frame.filter(question="Who?").row(0, named=True)
    assert (row["gold_answer"], row["messages"]) == (None, json.dumps(turns("Who?")))
    assert frame.filter(question="What is 3?")["gold_target"].to_list() == ["It is 3."]


def test_chats_cut_from_one_conversation_share_a_split(tmp_path: Path) -> None:
    rows = [
        {"messages": turns(f"Topic {n}?", *(f"Turn {i} of {n}." for i in range(1, 2 * length)))}
        for n in range(60)
        for length in (1, 2, 3)
    ]
    frame = load_questions(spec_of(tmp_path, rows), DATA)
    numbers = frame["messages"].str.extract(r"Topic (\d+)")
    splits = frame.with_columns(number=numbers).group_by("number").agg("split")["split"]
    assert all(len(found) == 3 and len(set(found)) == 1 for found in splits.to_list())
    assert frame["split"].n_unique() == 3


def test_chats_change_the_hash_of_questions_and_files_keep_theirs(tmp_path: Path) -> None:
    frame = load_questions(spec_of(tmp_path, ROWS), DATA)
    plain = frame.with_columns(messages=None)
    columns = sorted(set(frame.columns) - {"messages"})
    rows = frame.select(columns).sort("question_id").iter_rows()
    assert questions_hash(plain) == content_hash(*(json.dumps(row) for row in rows))
    assert questions_hash(frame) != questions_hash(plain)


def test_chats_reach_the_teacher_as_messages_and_else_as_one_text(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, ROWS, prompt={"instruction": "End with x."})
    row = chat_rows(ROWS[:1], "f")[0]
    settings: dict[str, Any] = {
        "run": {"name": "chat", "store": "s"},
        "data": {"dataset": "d.yaml"},
        "teacher": {"model": "t", "system_prompt": "You teach."},
        "student": {"model": "s"},
    }
    asked = render(validate_config(settings, "f"), spec, row["question"], row["messages"])
    assert asked == [
        {"role": "system", "content": "You teach.\n\nBe brief."},
        {"role": "user", "content": "End with x.\n\nHi."},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "Where is Ann?"},
    ]
    settings["teacher"] = {"model": "t", "api": "completions"}
    text = render(validate_config(settings, "f"), spec, row["question"], row["messages"])
    assert text == f"End with x.\n\nQuestion: {row['question']}\nAnswer:"


def test_chats_have_another_generation_than_the_same_texts_of_a_file(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, ROWS)
    files = spec.model_copy(update={"source": {"type": "files", "train": "chat.jsonl"}})
    assert prompt_identity(spec) == {**prompt_identity(files), "source": "chat"}


def test_student_of_chats_reads_a_file_of_chats(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, ROWS)
    metadata = StudentMetadata(
        run_id="r", round=0, dataset="chat", predict_prefix="", explain_prefix="",
        max_input_tokens=9, max_new_tokens=9, columns=spec.columns, source="chat",
        question_template=None, answer=spec.answer,
    )  # fmt: skip
    assert metadata.spec_for(tmp_path / "new.jsonl", {"messages"}).is_chat


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": "Hi."}, "a column messages or conversations; got text"),
        ({"messages": "Hi."}, "a list of turns"),
        ({"messages": [{"role": "tool", "content": "3"}]}, "got 'tool'"),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": [1]}]}, "calls of tools"),
        ({"messages": turns("Hi.", "")}, "not empty; got another from the assistant"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "from the user"),
        ({"messages": turns("Hi.", "Hello!")[1:]}, "user and assistant in turn; got assistant"),
        ({"messages": [*turns("Hi."), *turns("You?", "I.")]}, "got user, user, assistant"),
        ({"messages": turns(system="Be brief.")}, "got system"),
    ],
)
def test_chats_that_are_none_are_refused_with_their_row(
    tmp_path: Path, row: dict[str, Any], reason: str
) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        load_questions(spec_of(tmp_path, [*ROWS, row]), DATA)
    assert "chat.jsonl, row 11" in str(caught.value)


def test_spec_of_chats_refuses_columns_of_questions(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"columns\.gold_answer must not be set for source\.type"):
        spec_of(tmp_path, ROWS, columns={"gold_answer": "answer"})
