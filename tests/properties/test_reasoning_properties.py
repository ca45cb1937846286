"""Every form in which a server gives a thought, cut anywhere: nothing is lost, nothing misread."""

import json
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_schemas import Rationales
from qcrd_core.data.answers import AnswerSpec, extract
from qcrd_core.teacher.rows import Drawn, _tags, make_row
from qcrd_core.teacher.servers.choices import Refusal
from qcrd_core.teacher.servers.replies import read_reply

SPEC = AnswerSpec(kind="number")
USUAL, OTHER, OPENED = ("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("", "</think>")
KEY = ("q", 0, "hash")


@dataclass(frozen=True)
class Form:
    """How a server gives thought and text."""

    message: str
    """Which keys of the message hold them."""
    tags: tuple[str, str] = USUAL
    """Setting `teacher.think_tags`."""
    opening: str = ""
    closing: str = ""
    """What the model writes around its thought and the server leaves in the text."""


FORMS = {
    "reasoning": Form("reasoning"),
    "reasoning_content": Form("reasoning_content"),
    "parts": Form("parts"),
    "tags": Form("text", opening="<think>", closing="</think>"),
    "opened_in_prompt": Form("text", closing="</think>"),
    "opened_by_setting": Form("text", OPENED, closing="</think>"),
    "other_tags": Form("text", OTHER, opening="[THINK]", closing="[/THINK]"),
    "both": Form("both", opening="<think>", closing="</think>"),
}
# The thought draws conclusions too. Neither part holds a bracket, so neither holds a tag.
WORDS = st.text("abc 09.\n=é", max_size=25)
THOUGHT = WORDS.map(lambda words: f"{words}Maybe the answer is 999. Hmm.")
FINAL = WORDS.map(lambda words: f"{words}. So 3 * 4 = 12. The answer is 12. Done.")


def _message(form, thought, text):
    if form.message in {"reasoning", "reasoning_content"}:
        return {"content": text or None, form.message: thought or None}
    if form.message == "parts":
        parts = [{"type": "thinking", "thinking": [{"type": "text", "text": thought}]}]
        return {"content": [*parts, *([{"type": "text", "text": text}] if text else [])]}
    return {"content": text}


def _written(form, thought, final, cut):
    """What arrives of a thought and a text of which the model wrote `cut` characters."""
    if form.message not in {"text", "both"}:
        text = final[: max(0, cut - len(thought))]
        return _message(form, thought[:cut], text), thought[:cut], text
    whole = f"{form.opening}{thought}{form.closing}{final}"[:cut]
    if form.message == "both":  # a server that took one thought out, and left another one
        return {"content": whole, "reasoning": "First, 5."}, "First, 5.", whole
    return {"content": whole}, "", whole


def _completion(message, *, is_cut):
    choice = {"message": message, "finish_reason": "length" if is_cut else "stop"}
    reply = read_reply(200, json.dumps({"choices": [choice]}).encode())
    assert isinstance(reply, tuple)
    return reply[0]


def _row(form, completion):
    """The row of a completion, drawn beside one that ends its thought."""
    job = SimpleNamespace(
        config=SimpleNamespace(
            teacher=SimpleNamespace(think_tags=form.tags, structured_output=False)
        ),
        prepared=SimpleNamespace(served_name="m", revision=None),
        plan=SimpleNamespace(fingerprint="f"),
        run_id="r",
        spec=SimpleNamespace(answer=SPEC),
        by_id={"q": {"question": "Which?", "choices": None}},
    )
    sibling = _completion(_written(form, "So.", "The answer is 1.", 99)[0], is_cut=False)
    drawn = {
        key: Drawn(0, found, datetime.now(UTC))
        for key, found in ((KEY, completion), (("p", 0, "hash"), sibling))
    }
    return make_row(job, KEY, drawn[KEY], _tags(job, drawn)(drawn[KEY]))


def _letters(*texts):
    return Counter("".join(texts).replace(" ", "").replace("\n", ""))


def _without_tags(text, form):
    for tag in (*USUAL, *form.tags):
        text = text.replace(tag, "") if tag else text
    return text


@pytest.mark.parametrize("name", FORMS)
@settings(deadline=None, max_examples=40)
@given(thought=THOUGHT, final=FINAL, data=st.data())
def test_no_cut_loses_a_text_or_reads_an_answer_from_a_thought(name, thought, final, data):
    form = FORMS[name]
    start = len(f"{form.opening}{thought}{form.closing}")
    cut = data.draw(st.integers(0, start + len(final)), label="cut")
    message, apart, text = _written(form, thought, final, cut)
    is_cut = cut < start + len(final)

    row = _row(form, _completion(message, is_cut=is_cut))

    kept = [row.get(key) or "" for key in ("reasoning", "text")]
    assert _letters(*kept) == _letters(apart, _without_tags(text, form))
    # The final part alone says what the answer is; before it, there is none.
    seen = final[: max(0, cut - start)]
    expected = extract(seen, SPEC, None, is_cut=is_cut).answer if seen.strip() else None
    assert row.get("answer") == expected
    assert expected in {None, "12"}
    if not is_cut:
        assert (row["status"], row["text"].strip()) == ("ok", final.strip())
    elif len(form.opening) < cut < start and (form.closing or apart.strip()):
        assert row["status"] == "thought_only"


SOUP = st.lists(
    st.sampled_from([*USUAL, *OTHER, "<thi", "k>", "</", "The answer is 7.", " ", "\n", "a", "9"]),
    max_size=9,
).map("".join)


@settings(deadline=None, max_examples=100)
@given(
    text=SOUP,
    reasoning=st.none() | SOUP,
    tags=st.sampled_from([USUAL, OTHER, OPENED]),
    is_cut=st.booleans(),
)
@example(text="a</think>", reasoning="9", tags=OPENED, is_cut=True)
def test_no_heap_of_tags_loses_a_text_or_breaks_a_row(text, reasoning, tags, is_cut):
    message = {"content": text, "reasoning": reasoning}
    found = _completion(message, is_cut=is_cut)
    assert not isinstance(found, Refusal)
    row = _row(Form("text", tags), found)

    # A thought of another model's tags stays where it is; only tags themselves go.
    kept = _letters(*(row.get(key) or "" for key in ("reasoning", "text")))
    written = _letters(text, reasoning or "")
    gone = written - kept
    assert kept <= written
    assert set(gone) <= set("<>[]/thinkTHINK")
    columns = Rationales.create_empty().schema
    assert set(row) <= set(columns)
