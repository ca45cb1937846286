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
    text     lower case, single spaces, no quotes or punctuation around it

Nothing here raises on a model's text: if no answer can be read, it is None.
"""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

from pydantic import Field, model_validator

from qcrd_core.config.base import Section
from qcrd_core.data.arithmetic import Expression, find_expressions, format_number, plain
from qcrd_core.data.thoughts import split_thought

_SENTENCE_END = re.compile(r"[.!?](?:\s++|$)|\n++")
_CONCLUSION = re.compile(r"\W*(?:therefore|thus|hence|so|consequently)\b", re.IGNORECASE)
_ASIDE = re.compile(r"\b(?:because|since)\b", re.IGNORECASE)
_AROUND = " \t\n\"'`*_.,;:!?“”‘’"  # noqa: RUF001  (quotes as models write them)
_LETTER_ALONE = re.compile(r"\(?([A-Za-z])\)?[.:)]?")
_LETTER_FIRST = re.compile(r"(?:\(([A-Za-z])\)|([A-Za-z])[.:)])(?=\s|$)")
_LETTER_IN_TEXT = re.compile(r"\(([A-Za-z])\)")


class AnswerSpec(Section):
    """The form of answers in one data set, and their place in a completion."""

    kind: Literal["number", "choice", "label", "text"]
    """What an answer is. A number is compared by value; a choice is the letter or text of one of
    the question's choices; a label is one of `labels`; a text is compared without case and
    punctuation."""
    labels: tuple[str, ...] = Field(default=(), examples=[["yes", "no", "maybe"]])
    """All labels of the data set, for kind label."""
    marker: str | None = Field(default="The answer is", min_length=1, examples=["Answer:"])
    """Text before the answer in a completion, compared without case. Null: no such text."""
    stop: tuple[str, ...] = Field(default=(), examples=[["Question:"]])
    """Texts that begin something new, such as an invented next question. Sampling stops there, and
    a longer completion is cut there."""

    @property
    def marked(self) -> str:
        """The marker that a student learns to write between a rationale and its answer."""
        return self.marker or "The answer is"

    @model_validator(mode="after")
    def _labels_fit_kind(self) -> Self:
        if (self.kind == "label") != bool(self.labels):
            msg = (
                "answer.labels must be given if answer.kind is label, and only then; got kind "
                f"{self.kind} and {len(self.labels)} labels"
            )
            raise ValueError(msg)
        if len({_fold(label) for label in self.labels}) != len(self.labels):
            msg = "answer.labels must differ by more than case and spaces; got a duplicate"
            raise ValueError(msg)
        if not all(self.stop):
            msg = "answer.stop must hold non-empty texts; got an empty one"
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


def canonical(raw: str, spec: AnswerSpec, choices: Sequence[str] | None) -> str | None:
    """Convert the text of an answer to its canonical form.

    Args:
        raw: An answer such as `12 apples`, `(b)` or `( 84.0 / 2.0 )`, with or without a marker
            before it; not a whole completion.
        spec: The data set's answers.
        choices: The question's choices, for kind choice.

    Returns:
        The canonical text, or None if there is no answer.
    """
    tails = _tails(raw, spec)
    return _first_in(tails, spec, choices)[1] if tails else _read(raw, spec, choices)[1]


def extract(
    completion: str, spec: AnswerSpec, choices: Sequence[str] | None, *, is_cut: bool = False
) -> Extraction:
    """Split a completion into its reasoning and its answer.

    A thought between <think> tags is left out, because nothing in it is an answer yet. The text is
    cut at the first of `spec.stop`. Then:

    - If the marker occurs, the answer is in the sentence after it. If several markers occur, the
      first one with an answer in its sentence counts; if none has one, the last answer after the
      first marker counts.
    - If the marker does not occur, the last answer of the text counts.

    The last answer is, by kind: number: in the last sentence with a number, the value after the
    last `=`, else the first number of a conclusion ("Therefore ..."), else the last number.
    choice, label: the last one named. text: the last line.

    What a text that was cut would have said last is not known. It has an answer only if the
    sentence after a marker is whole.

    Args:
        completion: Text of a model.
        spec: The data set's answers.
        choices: The question's choices, for kind choice.
        is_cut: Whether the text ends at the length limit. If one of `spec.stop` occurs, the text
            before it is whole all the same.

    Returns:
        Reasoning and answer. If nothing after a marker is an answer, there is no answer, even if
        the text before it has numbers.
    """
    parts = split_thought(completion)
    if parts.thought is not None or parts.final != completion:
        found = extract(parts.final or "", spec, choices, is_cut=is_cut)
        return replace(found, rationale=found.rationale or parts.thought or None)
    text = _cut(completion, spec.stop)
    is_cut = is_cut and len(text) == len(completion.lstrip())
    tails = _tails(text, spec)
    if not tails:
        raw, answer = (None, None) if is_cut else _read_last(text, spec, choices)
        return Extraction(rationale=text.strip() or None, answer_raw=raw, answer=answer)
    if is_cut and not _SENTENCE_END.search(tails[-1].strip()):
        tails[-1] = ""
    raw, answer = _first_in(tails, spec, choices)
    if answer is None and not is_cut:
        raw, answer = _read_last(" ".join(tails), spec, choices)
    before = text[: _marker_starts(text, spec)[0]].strip()
    return Extraction(rationale=before or None, answer_raw=raw, answer=answer)


def equal(answer: str | None, gold_answer: str | None) -> bool:
    """Whether two canonical answers are equal; a missing answer equals nothing, not even itself."""
    return answer is not None and answer == gold_answer


def _cut(text: str, stops: Sequence[str]) -> str:
    # A stop text at the very beginning is ignored: the completion has not begun.
    text = text.lstrip()
    ends = [position for stop in stops if (position := text.find(stop)) > 0]
    return text[: min(ends)] if ends else text


@functools.lru_cache(maxsize=64)
def _marker_pattern(marker: str) -> re.Pattern[str]:
    words = [re.escape(word) for word in marker.split()]
    return re.compile(r"\s+".join(words), re.IGNORECASE)


def _marker_starts(text: str, spec: AnswerSpec) -> list[int]:
    if spec.marker is None:
        return []
    return [match.start() for match in _marker_pattern(spec.marker).finditer(text)]


def _tails(text: str, spec: AnswerSpec) -> list[str]:
    """The text after each marker, up to the next one."""
    if spec.marker is None:
        return []
    return _marker_pattern(spec.marker).split(text)[1:]


_Found = tuple[str | None, str | None]
"""(answer_raw, answer)"""


def _first_in(tails: Sequence[str], spec: AnswerSpec, choices: Sequence[str] | None) -> _Found:
    for tail in tails:
        found = _read(_first_sentence(tail), spec, choices)
        if found[1] is not None:
            return found
    return None, None


def _first_sentence(tail: str) -> str:
    # A choice's letter may be followed by a full stop ("b. a shop"), so a sentence of one character
    # continues.
    tail = tail.lstrip(" \t\n:*")
    for match in _SENTENCE_END.finditer(tail):
        if match.start() > 1:
            return tail[: match.start()]
    return tail


def _read(text: str, spec: AnswerSpec, choices: Sequence[str] | None) -> _Found:
    """Read the first answer in a text that should be an answer."""
    if spec.kind == "number":
        for sentence in _SENTENCE_END.split(plain(text)):
            expressions = find_expressions(sentence)
            if expressions:
                return _number(_after_equals(expressions) or expressions[0])
        return None, None
    if spec.kind == "choice":
        return _read_choice(text, choices or ())
    if spec.kind == "label":
        names = [_canonical_name(name, spec.labels) for name in _mentions(text, spec.labels)]
        return (names[0], names[0]) if names else (None, None)
    folded = _fold(text)
    return (text.strip(), folded) if folded else (None, None)


def _read_last(text: str, spec: AnswerSpec, choices: Sequence[str] | None) -> _Found:
    """Read the last answer of a text without a marker."""
    if spec.kind == "number":
        return _last_number(plain(text))
    if spec.kind == "text":
        lines = [line for line in text.splitlines() if _fold(line)]
        return _read(lines[-1], spec, choices) if lines else (None, None)
    names = spec.labels if spec.kind == "label" else tuple(choices or ())
    if spec.kind == "choice":
        letters = [_choice_of(letter, names) for letter in _LETTER_IN_TEXT.findall(text)]
        known = [choice for choice in letters if choice is not None]
        last_line = text.strip().rpartition("\n")[2]
        found = (known[-1], known[-1]) if known else _marked_choice(last_line, names)
        if found[1] is not None:
            return found
    mentioned = _mentions(text, names)
    return (mentioned[-1], _canonical_name(mentioned[-1], names)) if mentioned else (None, None)


def _last_number(text: str) -> _Found:
    for sentence in reversed(_SENTENCE_END.split(text)):
        expressions = find_expressions(sentence)
        if not expressions:
            continue
        # "She played 3 games because 7 * 3 = 21": numbers of the reason are not the answer.
        aside = _ASIDE.search(sentence)
        before = [item for item in expressions if aside is None or item.start < aside.start()]
        expressions = before or expressions
        # "So he read 102 pages a day to finish in 6 days": a conclusion names its result first.
        stated = expressions[0] if _CONCLUSION.match(sentence) else expressions[-1]
        return _number(_after_equals(expressions) or stated)
    return None, None


def _after_equals(expressions: Sequence[Expression]) -> Expression | None:
    results = [item for item in expressions if item.follows_equals]
    return results[-1] if results else None


def _number(expression: Expression) -> _Found:
    text = None if expression.value is None else format_number(expression.value)
    return (None, None) if text is None else (expression.text, text)


def _read_choice(text: str, choices: Sequence[str]) -> _Found:
    """Read a choice: its whole text, else its letter, else the first choice that is named."""
    found = _marked_choice(text, choices)
    mentioned = _mentions(text, choices) if found[1] is None else []
    return (mentioned[0], _canonical_name(mentioned[0], choices)) if mentioned else found


def _marked_choice(text: str, choices: Sequence[str]) -> _Found:
    """The choice if a text is a choice, is its letter, or begins with its letter."""
    shown = text.strip()
    whole = _canonical_name(shown, choices)
    if whole is not None:
        return shown, whole
    letter = _LETTER_ALONE.fullmatch(shown.strip("*.: ")) or _LETTER_FIRST.match(shown)
    if letter is not None:
        choice = _choice_of(next(group for group in letter.groups() if group), choices)
        if choice is not None:
            return letter.group(), choice
    return None, None


def _choice_of(letter: str, choices: Sequence[str]) -> str | None:
    index = ord(letter.lower()) - ord("a")
    return choices[index] if index < len(choices) else None


@functools.lru_cache(maxsize=1024)
def _mention_pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    # Longest first, so that "not entailment" is not read as "entailment".
    patterns = sorted((r"\s+".join(map(re.escape, _fold(name).split())) for name in names), key=len)
    return re.compile(rf"(?<!\w)(?:{'|'.join(reversed(patterns))})(?!\w)", re.IGNORECASE)


def _mentions(text: str, names: Sequence[str]) -> list[str]:
    """All mentions of the names as whole words, as written in the text."""
    usable = tuple(name for name in names if _fold(name))
    return _mention_pattern(usable).findall(text) if usable else []


def _canonical_name(text: str, names: Sequence[str]) -> str | None:
    folded = _fold(text)
    return next((name for name in names if _fold(name) == folded), None) if folded else None


def _fold(text: str) -> str:
    return " ".join(text.split()).strip(_AROUND).lower()
