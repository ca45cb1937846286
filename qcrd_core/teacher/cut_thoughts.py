"""Stops sampling if the teacher's thoughts are cut too often to be worth their tokens."""

import math

from qcrd_core.config.teacher import TeacherSection
from qcrd_core.data.thoughts import opens_in_prompt, split_thought
from qcrd_core.errors import SamplingError
from qcrd_core.teacher.servers.choices import Completion

_LEAST = 20
"""Samples before anything is concluded."""


class CutThoughts:
    """Counts the samples of one process that have nothing behind their thought."""

    def __init__(self, teacher: TeacherSection) -> None:
        """Begin to count.

        Args:
            teacher: Tags of a thought, and the share that is allowed.
        """
        self._teacher = teacher
        self._num = self._num_cut = self._num_stopped = 0
        self._is_opened = False

    def add(self, completion: Completion) -> None:
        """Count one completion."""
        tags, text = self._teacher.think_tags, completion.text
        self._is_opened = self._is_opened or opens_in_prompt(text, tags)
        is_cut = completion.finish_reason == "length"
        parts = split_thought(text, ("", tags[1]) if self._is_opened and is_cut else tags)
        has_thought = parts.thought is not None or completion.reasoning is not None
        is_thought_only = has_thought and not (parts.final or "").strip()
        self._num += 1
        self._num_cut += is_thought_only
        self._num_stopped += is_thought_only and not is_cut

    @property
    def note(self) -> str:
        """Their number in a few words, for a progress bar; empty without any."""
        return f", {self._num_cut:,} only a thought" if self._num_cut else ""

    @property
    def error(self) -> SamplingError | None:
        """Why sampling should stop; None if the share is allowed, or may be so by chance."""
        share = self._teacher.max_cut_thoughts
        # Two standard deviations of a count with just the share that is allowed.
        allowed = self._num * share + 2 * math.sqrt(self._num * share * (1 - share))
        if self._num < _LEAST or self._num_cut <= allowed:
            return None
        remedy = (
            f"Raise teacher.max_new_tokens ({self._teacher.max_new_tokens}), or let the teacher "
            "think less with teacher.extra_body, for example {reasoning_effort: low} or "
            "{chat_template_kwargs: {enable_thinking: false}}"
        )
        if 2 * self._num_stopped > self._num_cut:
            remedy = (
                "Most ended before the length limit: set teacher.stop=[] if one of answer.stop "
                "occurs in thoughts, and check the server's reasoning parser"
            )
        msg = (
            f"{self._num_cut} of the first {self._num} samples are only a thought without an "
            f"answer, more than teacher.max_cut_thoughts={share:g} allows. What was drawn is kept. "
            f"{remedy}; then run again."
        )
        return SamplingError(msg)
