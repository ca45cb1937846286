"""Thoughts: every form in which they come, whole and cut anywhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcrd_core.data.answers import AnswerSpec, extract
from qcrd_core.data.completions import MAX_CHARS, read_completion
from qcrd_core.data.thoughts import Split, opens_in_prompt, split_thought

SPEC = AnswerSpec(kind="number")
THOUGHT = "Maybe the answer is 999. Hmm, no."
FINAL = "3 * 4 = 12. The answer is 12."


@pytest.mark.parametrize(
    ("text", "thought", "final"),
    [
        (FINAL, None, FINAL),
        (f" {FINAL} ", None, f" {FINAL} "),
        (f"<think>\n{THOUGHT}\n</think>\n\n{FINAL}", THOUGHT, FINAL),
        # The chat template opened the thought in the prompt.
        (f"{THOUGHT}\n</think>\n{FINAL}", THOUGHT, FINAL),
        # Qwen3 with thinking switched off.
        (f"<think>\n\n</think>\n\n{FINAL}", None, FINAL),
        # Cut within the thought, right after it, and before it said anything.
        (f"<think>\n{THOUGHT}", THOUGHT, None),
        (f"<think>{THOUGHT}</think>\n", THOUGHT, None),
        ("<think>\n", "", None),
        # A text before the thought is no conclusion if the thought has no end.
        (f"The answer is 7.<think>{THOUGHT}", f"The answer is 7.\n{THOUGHT}", None),
        # A later thought does not undo the answer, and a tag named in a thought does not hide it.
        (f"<think>a</think>{FINAL}<think>b</think>", "a\nb", FINAL),
        (f"<think>The tag <think> opens.</think>{FINAL}", "The tag\nopens.", FINAL),
        (f"<think>a <think>b</think> c</think>{FINAL}", "a\nb\nc", FINAL),
    ],
)
def test_split_thought_finds_both_parts(text, thought, final):
    assert split_thought(text) == Split(thought, final)


@pytest.mark.parametrize("tags", [("[THINK]", "[/THINK]"), ("<seed:think>", "</seed:think>")])
def test_split_thought_by_other_tags_leaves_the_usual_ones(tags):
    text = f"{tags[0]}{THOUGHT}{tags[1]}{FINAL} <think>"
    assert split_thought(text, tags) == Split(THOUGHT, f"{FINAL} <think>")


def test_split_thought_with_an_empty_opening_tag_begins_inside_the_thought():
    tags = ("", "</think>")
    assert split_thought(f"{THOUGHT}</think>{FINAL}", tags) == Split(THOUGHT, FINAL)
    assert split_thought(THOUGHT, tags) == Split(THOUGHT, None)
    assert split_thought(f"<think>{THOUGHT}</think>{FINAL}", tags) == Split(THOUGHT, FINAL)
    assert split_thought("a</think>b<think>c", tags).final is None


@pytest.mark.parametrize(
    ("text", "opens"),
    [
        (f"{THOUGHT}</think>{FINAL}", True),
        (f"<think>{THOUGHT}</think>{FINAL}", False),
        (f"<think>{THOUGHT}", False),
        (FINAL, False),
        (f"a</think><think>b</think>{FINAL}", True),
    ],
)
def test_opens_in_prompt_needs_a_closing_tag_alone(text, opens):
    assert opens_in_prompt(text) is opens


def test_extract_reads_no_answer_from_a_thought():
    found = extract(f"<think>{THOUGHT}</think>{FINAL}", SPEC, None)
    assert (found.rationale, found.answer) == ("3 * 4 = 12.", "12")
    found = extract(f"<think>{THOUGHT}", SPEC, None, is_cut=True)
    assert (found.rationale, found.answer) == (THOUGHT, None)


def test_extract_takes_the_thought_as_rationale_of_a_bare_answer():
    found = extract("<think>3 * 4 is 12.</think>The answer is 12.", SPEC, None)
    assert (found.rationale, found.answer) == ("3 * 4 is 12.", "12")


WORDS = st.text("ab 9.\n", max_size=30)


@given(WORDS, WORDS, st.booleans(), st.data())
def test_cut_anywhere_in_a_thought_leaves_no_final_part(thought, final, is_opened, data):
    text = f"{'<think>' * is_opened}{thought}</think>{final}"
    end = text.index("</think>")
    whole = split_thought(text)
    assert whole.final == (final.strip() or None)
    assert (whole.thought or "") == thought.strip()
    cut = data.draw(st.integers(len("<think>") * is_opened, end))
    tags = ("<think>" if is_opened else "", "</think>")
    assert split_thought(text[:cut], tags).final is None
    if is_opened:
        assert extract(text[:cut], SPEC, None, is_cut=True).answer is None


@pytest.mark.parametrize(
    ("text", "reasoning", "row"),
    [
        (FINAL, None, (FINAL, None, "3 * 4 = 12.", "12", "ok")),
        (FINAL, " So 12.\n", (FINAL, "So 12.", "3 * 4 = 12.", "12", "ok")),
        (
            "\n\nThe answer is 12.",
            "So 12.",
            ("\n\nThe answer is 12.", "So 12.", "So 12.", "12", "ok"),
        ),
        (f"<think>So 12.</think>{FINAL}", None, (FINAL, "So 12.", "3 * 4 = 12.", "12", "ok")),
        # Both forms at once, as of a server that takes out the first thought only.
        (f"<think>b</think>{FINAL}", "a", (FINAL, "a\nb", "3 * 4 = 12.", "12", "ok")),
        ("", "The answer is 9.", (None, "The answer is 9.", None, None, "thought_only")),
        ("<think>", None, (None, "", None, None, "thought_only")),
        ("Hm.", "So 12.", ("Hm.", "So 12.", "Hm.", None, "no_answer")),
        ("", None, ("", None, None, None, "no_answer")),
        ("", "  ", ("", None, None, None, "no_answer")),
    ],
)
def test_read_completion_keeps_the_thought_apart(text, reasoning, row):
    found = read_completion(text, SPEC, None, reasoning=reasoning)
    names = ("text", "reasoning", "rationale", "answer", "status")
    assert tuple(found.get(name) for name in names) == row


def test_read_completion_of_a_server_that_took_the_thought_out_is_whole():
    found = read_completion(FINAL, SPEC, None, reasoning="So 12.", tags=("", "</think>"))
    assert (found["text"], found["reasoning"]) == (FINAL, "So 12.")


@pytest.mark.parametrize("longer", ["text", "reasoning"])
def test_text_beyond_the_bound_is_a_failure_that_says_so(longer):
    texts = {"text": FINAL, "reasoning": "So 12.", longer: "9" * (MAX_CHARS + 1)}

    found = read_completion(texts["text"], SPEC, None, reasoning=texts["reasoning"])

    error = "The text has 1,000,001 characters; at most 1,000,000 are read."
    assert found == {"status": "failed", "error": error}
