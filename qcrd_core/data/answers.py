"""Answers: finds them in a completion, makes them canonical, and compares them.

    found = extract("6 * 7 = 42. The answer is 42 apples.", spec, None)
    found.rationale, found.answer               "6 * 7 = 42.", "42"
    canonical("$1,200.00", spec, None)          "1200"
    equal(found.answer, question.gold_answer)

Equal meaning gives equal canonical text, so a vote counts texts. Canonical forms:

    number   exact value: `7`, `2.5` if the decimals end, else the reduced fraction `1/3`;
             units, currency and % are dropped. 0.33 is not 1/3.
    choice   the text of the choice, exactly as the question lists it
    label    the label, exactly as the data set lists it
    labels   the labels in the data set's order, joined by commas; `none` if there are none
    text     lower case, single spaces, no quotes or punctuation around it
    json     sorted keys; texts with single spaces, whole numbers without decimals
    verifier what the user's own function returns (`qcrd_core.data.verifier`)

Nothing here raises on a model's text: if no answer can be read, it is None.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from qcrd_core.config.base import Section
from qcrd_core.data.readers.documents import (
    first_document,
    last_document,
    schema_check,
    schema_problem,
)
from qcrd_core.data.readers.markers import (
    Tail,
    before,
    correction,
    marked_tails,
    usual_tail,
)
from qcrd_core.data.readers.names import (
    all_labels,
    first_choice,
    first_label,
    last_choice,
    last_label,
)
from qcrd_core.data.readers.numbers import NOTHING, Found, first_number, last_number
from qcrd_core.data.readers.texts import first_sentence, fold, sentence_ends
from qcrd_core.data.thoughts import split_thought
from qcrd_core.data.verifier import VerifierOrText, verifiable
from qcrd_core.runtime.verifier import Verdict

_QUOTED_AT_END = re.compile(r"[\"“«]([^\"“”«»]+)[\"”»]?[\s.!]*$")
_POINTS = re.compile(r"[\s:*]*(?:\n\s*[-*•]\s[^\n]*+)++")
_MARKUP = re.compile(r"\*\*|\\(?:text|textbf|mathrm|boxed)\s?\{|[{}$]")


class AnswerSpec(Section):
    """The form of answers in one data set, and their place in a completion."""

    later = frozenset({"marker_at", "decimal_mark", "json_schema", "verifier"})

    kind: Literal["number", "choice", "label", "labels", "text", "json", "verifier"]
    """What an answer is. A number is compared by value; a choice is the letter or text of one of
    the question's choices; a label is one of `labels`, and labels are any number of them in any
    order; a text is compared without case and punctuation; json is an object or a list, compared
    without the order of keys; what a verifier reads, your own function compares."""
    labels: tuple[str, ...] = Field(default=(), examples=[["yes", "no", "maybe"]])
    """All labels of the data set, for kind label or labels."""
    json_schema: dict[str, Any] | None = Field(
        default=None, examples=[{"type": "object", "required": ["name"]}]
    )
    """JSON Schema that an answer of kind json must follow; another one is no answer. Null: any."""
    verifier: VerifierOrText | None = Field(default=None, examples=["sql_answers:canonical"])
    """For kind verifier: your function `module:function`, or a section with its limits."""
    marker: str | None = Field(default="The answer is", min_length=1, examples=["Answer:"])
    """Text before the answer in a completion, compared without case. Null: no such text. A
    completion without it is read after `\\boxed`, `####`, `Answer:` or `the final answer is`."""
    marker_at: Literal["first", "last"] = "first"
    """Which marker counts if a completion has several: the first with an answer, unless the text
    takes it back ("Wait, ..."); or the last."""
    decimal_mark: Literal[".", ","] = "."
    """Decimal mark of numbers that can be read in two ways, and of canonical numbers: `1.234` is
    1234 with a comma. `1.234,5` and `1,234.5` are read alike with both."""
    stop: tuple[str, ...] = Field(default=(), examples=[["Question:"]])
    """Texts that begin something new, such as an invented next question. Sampling stops there, and
    a longer completion is cut there."""

    @property
    def is_valid(self) -> Callable[[Any], bool] | None:
        """Check of a parsed answer of kind json; None if every one is valid."""
        return None if self.json_schema is None else schema_check(json.dumps(self.json_schema))

    @property
    def marked(self) -> str:
        """The marker that a student learns to write between a rationale and its answer."""
        return self.marker or "The answer is"

    @property
    def is_learnt_as_written(self) -> bool:
        """Whether a student learns an answer as it was written, not its canonical text.

        A verifier's canonical text may be no answer, such as the result of a query.
        """
        return self.kind == "verifier"

    def ending(self, answer: str) -> str:
        """The marker and an answer, as a whole completion ends."""
        # A full stop would become part of a program or a query.
        return f"{self.marker} {answer}{'' if self.kind == 'verifier' else '.'}"

    def identity(self) -> dict[str, Any]:
        """What decides how a completion is read, JSON-able."""
        content = self.model_dump(mode="json")
        if self.verifier is not None:  # its content counts, not its place
            content["verifier"].pop("folder")
        return content

    @model_validator(mode="after")
    def _verifier_fits_kind(self) -> Self:
        if (self.kind == "verifier") != (self.verifier is not None):
            msg = (
                "answer.verifier must be given if answer.kind is verifier, and only then; got kind "
                f"{self.kind} and {'no' if self.verifier is None else 'a'} verifier"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _labels_fit_kind(self) -> Self:
        if (self.kind in {"label", "labels"}) != bool(self.labels):
            msg = (
                "answer.labels must be given if answer.kind is label or labels, and only then; got "
                f"kind {self.kind} and {len(self.labels)} labels"
            )
            raise ValueError(msg)
        if self.kind == "labels" and any("," in label for label in self.labels):
            msg = "answer.labels of kind labels must have no comma, which separates them; got one"
            raise ValueError(msg)
        if len({fold(label) for label in self.labels}) != len(self.labels):
            msg = "answer.labels must differ by more than case and spaces; got a duplicate"
            raise ValueError(msg)
        if not all(self.stop):
            msg = "answer.stop must hold non-empty texts; got an empty one"
            raise ValueError(msg)
        if self.decimal_mark == "," and self.kind != "number":
            msg = f"answer.decimal_mark applies only to answer.kind number; got {self.kind}"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _schema_is_one(self) -> Self:
        if self.json_schema is None:
            return self
        if self.kind != "json":
            msg = f"answer.json_schema applies only to answer.kind json; got {self.kind}"
            raise ValueError(msg)
        problem = schema_problem(self.json_schema)
        if problem is not None:
            msg = f"answer.json_schema must be a JSON Schema; got one in which {problem}"
            raise ValueError(msg)
        return self


@dataclass(frozen=True)
class Extraction:
    """Rationale and answer of a completion."""

    rationale: str | None
    """The text before the marker, or the whole text if there is no marker; if that is empty, the
    thought between <think> tags. None if there is none."""
    answer_raw: str | None
    """The answer as written; None if none could be read."""
    answer: str | None
    """The canonical answer; None if none could be read."""
    error: str | None = None
    """Why a verifier failed, in one line; None if it did not."""


def canonical(
    raw: str, spec: AnswerSpec, choices: Sequence[str] | None, question: str = ""
) -> str | None:
    """Convert the text of an answer to its canonical form.

    Args:
        raw: An answer such as `12 apples`, `(b)` or `( 84.0 / 2.0 )`, with or without a marker
            before it; not a whole completion.
        spec: The data set's answers.
        choices: The question's choices, for kind choice.
        question: Text of the question, for kind verifier.

    Returns:
        The canonical text, or None if there is no answer.
    """
    return read_answer(raw, spec, choices, question).answer


def read_answer(
    raw: str, spec: AnswerSpec, choices: Sequence[str] | None, question: str = ""
) -> Verdict:
    """As `canonical`, with the reason if a verifier failed."""
    if spec.kind == "verifier":
        found = _verified(raw, spec, question)
        return Verdict(found.answer, found.error)
    return Verdict(_canonical(raw, spec, choices))


def _canonical(raw: str, spec: AnswerSpec, choices: Sequence[str] | None) -> str | None:
    if spec.kind == "json":  # its texts may hold a marker
        return _read(raw, spec, choices)[1]
    tails = marked_tails(raw, spec.marker)
    if tails:
        return _first_in(tails, spec, choices)[1]
    usual = usual_tail(raw)
    return _read(raw if usual is None else usual.text, spec, choices)[1]


def extract(
    completion: str,
    spec: AnswerSpec,
    choices: Sequence[str] | None,
    *,
    question: str = "",
    is_cut: bool = False,
) -> Extraction:
    r"""Split a completion into its reasoning and its answer.

    A thought between <think> tags is left out, because nothing in it is an answer yet. The text is
    cut at the first of `spec.stop`. Then:

    - If the marker occurs, the answer is in the sentence after it. If several markers occur,
      `spec.marker_at` chooses; a marker that only supposes ("whether the answer is 10") does not
      count. If none has an answer in its sentence, the last answer after the first marker counts.
    - Otherwise, if one of the usual marks (`\boxed`, `####`, `Answer:`) occurs, the last one
      counts.
    - Otherwise the last answer of the text counts.

    The last answer is, by kind: number: in the last sentence with a number, the value after the
    last `=`, else the first number of a conclusion ("Therefore ..."), else the last number.
    choice, label: the last one named. text: the words in quotes at the end, else the last line.

    Several answers ("(a) or (b)", "2 hours and 30 minutes") are none. A verifier gets what
    `verifiable` finds after the first or last marker, or in the whole text.

    What a text that was cut would have said last is not known. It has an answer only if the
    sentence after a marker is whole.

    Args:
        completion: Text of a model.
        spec: The data set's answers.
        choices: The question's choices, for kind choice.
        question: Text of the question, for kind verifier.
        is_cut: Whether the text ends at the length limit. If one of `spec.stop` occurs, the text
            before it is whole all the same.

    Returns:
        Reasoning and answer. If nothing after a marker is an answer, there is no answer, even if
        the text before it has numbers.
    """
    parts = split_thought(completion)
    if parts.thought is not None or parts.final != completion:
        found = extract(parts.final or "", spec, choices, question=question, is_cut=is_cut)
        return replace(found, rationale=found.rationale or parts.thought or None)
    text = _cut(completion, spec.stop)
    is_cut = is_cut and len(text) == len(completion.lstrip())
    if spec.kind == "verifier":
        return _verified(text, spec, question, is_cut=is_cut)
    tails = marked_tails(text, spec.marker)
    if tails:
        start, (raw, answer) = _marked(tails, spec, choices, is_cut)
    else:
        usual = None if is_cut or spec.kind == "json" else usual_tail(text)
        start = len(text) if usual is None or usual.is_box else usual.start
        raw, answer = NOTHING if is_cut else _unmarked(text, usual, spec, choices)
    return Extraction(_rationale(text, start), raw if answer is not None else None, answer)


def equal(answer: str | None, gold_answer: str | None) -> bool:
    """Whether two canonical answers are equal; a missing answer equals nothing, not even itself."""
    return answer is not None and answer == gold_answer


def _rationale(text: str, start: int) -> str | None:
    return before(text, start) if start < len(text) else text.strip() or None


def _verified(text: str, spec: AnswerSpec, question: str, *, is_cut: bool = False) -> Extraction:
    assert spec.verifier is not None
    start, said = len(text), text
    tails = marked_tails(text, spec.marker)
    if tails:
        tail = tails[0 if spec.marker_at == "first" else -1]
        start, said = tail.start, tail.text
    # Only the end of the last tail is unknown.
    is_cut = is_cut and text.endswith(said)
    raw = verifiable(said, is_marked=bool(tails), is_cut=is_cut)
    found = Verdict(None) if raw is None else spec.verifier.read(raw, question)
    raw = None if found.answer is None else raw
    return Extraction(_rationale(text, start), raw, found.answer, found.error)


def _cut(text: str, stops: Sequence[str]) -> str:
    # A stop text at the very beginning is ignored: the completion has not begun.
    text = text.lstrip()
    ends = [position for stop in stops if (position := text.find(stop)) > 0]
    return text[: min(ends)] if ends else text


def _marked(
    tails: list[Tail], spec: AnswerSpec, choices: Sequence[str] | None, is_cut: bool
) -> tuple[int, Found]:
    """Where the reasoning of a text with markers ends, and its answer."""
    # A document that is read shows by itself that it is whole.
    if is_cut and spec.kind != "json" and not list(sentence_ends(tails[-1].text.strip())):
        tails = [*tails[:-1], Tail(tails[-1].start, "")]
    ordered = tails if spec.marker_at == "first" else tails[::-1]
    start, found, rest, is_unreadable = ordered[0].start, NOTHING, "", False
    for tail in ordered:
        said = _said(tail, spec)
        raw, answer = _read(said, spec, choices)
        is_unreadable |= raw is not None and answer is None
        if answer is None:
            continue
        if found != NOTHING or spec.marker_at == "last":
            start = tail.start
        found = raw, answer
        taken_back = correction(tail.text, said) if spec.marker_at == "first" else None
        if taken_back is None:
            return start, found
        start, rest = tail.start, tail.text[taken_back:]
    if is_cut or (is_unreadable and found == NOTHING):
        return start, NOTHING
    if found == NOTHING:
        return start, _read_last(" ".join(tail.text for tail in tails), spec, choices)
    renewed = _read_last(rest, spec, choices)
    return start, found if renewed[1] is None else renewed


def _unmarked(
    text: str, usual: Tail | None, spec: AnswerSpec, choices: Sequence[str] | None
) -> Found:
    if usual is None:
        return _read_last(text, spec, choices)
    said = usual.text if usual.is_box else _said(usual, spec)
    found = _read(said, spec, choices)
    taken_back = correction(usual.text, said)
    if taken_back is not None:
        renewed = _read_last(usual.text[taken_back:], spec, choices)
        found = found if renewed[1] is None else renewed
    return _read_last(text, spec, choices) if found == NOTHING else found


def _first_in(tails: Sequence[Tail], spec: AnswerSpec, choices: Sequence[str] | None) -> Found:
    found = (_read(_said(tail, spec), spec, choices) for tail in tails)
    return next((item for item in found if item[1] is not None), NOTHING)


def _said(tail: Tail, spec: AnswerSpec) -> str:
    """The part after a marker that is the answer: a sentence, a list, or a whole document."""
    if spec.kind == "json":
        return tail.text
    points = _POINTS.match(tail.text) if spec.kind == "labels" else None
    return first_sentence(tail.text) if points is None else points[0]


def _read(text: str, spec: AnswerSpec, choices: Sequence[str] | None) -> Found:
    """Read the first answer in a text that should be an answer."""
    if spec.kind == "number":
        return first_number(text, spec.decimal_mark)
    if spec.kind == "choice":
        return first_choice(text, choices or ())
    if spec.kind == "label":
        return first_label(text, spec.labels)
    if spec.kind == "labels":
        return all_labels(text, spec.labels)
    if spec.kind == "json":
        return first_document(text, spec.is_valid)
    shown = _MARKUP.sub("", text).strip()
    folded = fold(shown)
    return (shown, folded) if folded else NOTHING


def _read_last(text: str, spec: AnswerSpec, choices: Sequence[str] | None) -> Found:
    """Read the last answer of a text without a marker."""
    if spec.kind == "number":
        return last_number(text, spec.decimal_mark)
    if spec.kind == "choice":
        return last_choice(text, choices or ())
    if spec.kind == "label":
        return last_label(text, spec.labels)
    if spec.kind == "json":
        return last_document(text, spec.is_valid)
    line = next((line for line in reversed(text.splitlines()) if fold(line)), "")
    quoted = _QUOTED_AT_END.search(line) if spec.kind == "text" else None
    return _read(line if quoted is None else quoted[1], spec, choices)
