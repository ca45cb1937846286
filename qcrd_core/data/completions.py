"""Reads a completion into the columns of table `rationales` that hold its texts and its answer."""

from collections.abc import Sequence
from typing import Any

from qcrd_core.config.base import THINK_TAGS
from qcrd_core.data.answers import AnswerSpec, Extraction, canonical, extract
from qcrd_core.data.structured import unfold
from qcrd_core.data.thoughts import Tags, split_thought
from qcrd_core.data.verifier import failed

MAX_CHARS = 1_000_000
"""Longer texts are not read. The longest target that a setting allows has 65,536 tokens."""


def read_completion(
    text: str,
    spec: AnswerSpec,
    choices: Sequence[str] | None,
    *,
    question: str = "",
    reasoning: str | None = None,
    is_cut: bool = False,
    is_structured: bool = False,
    tags: Tags = THINK_TAGS,
) -> dict[str, Any]:
    """Split a completion into thought, explanation and answer.

    Args:
        text: The completion, with or without a thought in tags.
        spec: The data set's answers.
        choices: The question's choices, for kind choice.
        question: Text of the question, for kind verifier.
        reasoning: The thought, if the server returned it apart from the text.
        is_cut: Whether the text ends at the length limit.
        is_structured: Whether the server enforced a schema of rationale and answer.
        tags: Tags around a thought within the text.

    Returns:
        Columns text, reasoning, rationale, answer_raw, answer and status; with `error` if a
        verifier failed. The status is `thought_only` if nothing follows a thought: no answer is
        read from it. A text or thought of more than `MAX_CHARS` characters gives only an error,
        with the status `failed`.
    """
    length = max(len(text), len(reasoning or ""))
    if length > MAX_CHARS:
        error = f"The text has {length:,} characters; at most {MAX_CHARS:,} are read."
        return {"status": "failed", "error": error}
    # The server has already taken the thought out, so the text begins after it.
    is_apart = reasoning is not None and bool(reasoning.strip())
    parts = split_thought(text, (THINK_TAGS if is_apart and not tags[0] else tags))
    thoughts = [part.strip() for part in (reasoning, parts.thought) if part and part.strip()]
    thought = "\n".join(thoughts) or None
    final = parts.final
    if (thought is not None or final is None) and not (final or "").strip():
        return {"reasoning": thought or "", "status": "thought_only"}
    unfolded = unfold(final or "") if is_structured else None
    if unfolded is None:
        found = extract(final or "", spec, choices, question=question, is_cut=is_cut)
    else:
        answer = canonical(unfolded[1], spec, choices, question)
        found = Extraction(unfolded[0] or None, unfolded[1] if answer else None, answer)
    failure = {} if found.error is None else {"error": failed(found.error)}
    return {
        **failure,
        "text": final,
        "reasoning": thought,
        "rationale": found.rationale or thought,
        "answer_raw": found.answer_raw,
        "answer": found.answer,
        "status": "no_answer" if found.answer is None else "ok",
    }
