"""Answers that only the user's own code can compare: SQL, programs, quantities with units.

    def canonical(text: str, question: str) -> str | None: ...     in sql_answers.py
    answer: {kind: verifier, verifier: sql_answers:canonical}      in the data set's file

A vote counts texts, so the code says what an answer is, not whether two are equal: equal answers
get equal texts, and what holds no answer gets None. So vote, positives, accuracy and student need
nothing else. `qcrd_core.runtime.verifier` calls it in a process with limits.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field

from qcrd_core.config.base import MAX_SECONDS, Section
from qcrd_core.config.files import expand_user
from qcrd_core.runtime.verifier import Call, Verdict, VerifierProcess, verifier_process

logger = logging.getLogger(__name__)

_NUM_SHOWN = 3
_FAILED = "The verifier failed: "
_BLOCK = re.compile(r"```[^\n`]*\n(.*?)```", re.DOTALL)


class Verifier(Section):
    """A function of yours that reads answers, and its limits."""

    function: str = Field(
        pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$", examples=["sql_answers:canonical"]
    )
    """`module:function`. It is called with the text that may hold an answer and with the question,
    and returns the canonical text, which is equal for equal answers, or None if there is no answer.
    Equal calls must give equal results."""
    timeout_seconds: float = Field(default=5.0, gt=0, le=MAX_SECONDS)
    """Longest time per text. A text that takes longer has no answer."""
    max_memory_mib: int = Field(default=2048, ge=64, le=2**24)
    """Largest address space of the process, MiB. A text that needs more has no answer."""
    folder: Path | None = Field(default=None, examples=["verifiers"])
    """Where the module is looked for, before the current folder and Python's path. Null: the folder
    of the data set's file."""
    source_hash: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the module's file. Null takes the present file; runs and students hold the hash of
    the file that they were made with, and no other file reads their answers."""

    def resolved(self, folder: Path) -> Self:
        """Import the function, and note where it was found and what its file holds.

        Args:
            folder: That of the data set's file.

        Returns:
            The same with `folder` (absolute) and `source_hash`.

        Raises:
            ConfigError: If it cannot be imported, or its file is not that of `source_hash`.
        """
        found = folder if self.folder is None else folder / expand_user(str(self.folder))
        located = self.model_copy(update={"folder": found})
        # Not the shared process, which may have imported the file as it was earlier.
        with closing(VerifierProcess(located._call)) as process:
            return located.model_copy(update={"source_hash": process.source_hash()})

    def check(self) -> None:
        """Import the function, unless it is.

        Raises:
            ConfigError: As `resolved`.
        """
        verifier_process(self._call).source_hash()

    def read(self, text: str, question: str) -> Verdict:
        """Read the answer in a text.

        Args:
            text: From `verifiable`.
            question: The question, as models read it.

        Returns:
            The canonical text, or None, with the reason if the function failed.

        Raises:
            ConfigError: As `resolved`.
        """
        return verifier_process(self._call).ask(text, question)

    @property
    def _call(self) -> Call:
        return Call(
            self.function,
            timeout_seconds=self.timeout_seconds,
            max_memory_mib=self.max_memory_mib,
            folder=self.folder,
            source_hash=self.source_hash,
        )


def _from_text(content: Any) -> Any:
    return {"function": content} if isinstance(content, str) else content


VerifierOrText = Annotated[
    Verifier, BeforeValidator(_from_text, json_schema_input_type=str | Verifier)
]


def verifiable(written: str, *, is_marked: bool, is_cut: bool) -> str | None:
    """The part of a text that a verifier gets.

    Args:
        written: What follows the marker, or the whole text if there is no marker.
        is_marked: Whether it follows a marker.
        is_cut: Whether the text ends at the length limit.

    Returns:
        The content of a code block: the first one after a marker, else the last one. Without a
        block all of it, unless it was cut: its end is not known. None if there is nothing.
    """
    blocks = _BLOCK.findall(written)
    if blocks:
        written = blocks[0 if is_marked else -1]
    elif is_cut:
        return None
    return written.strip() or None


def failed(reason: str) -> str:
    """The column `error` of a rationale on which a verifier failed."""
    return f"{_FAILED}{reason}"


def log_failures(errors: Iterable[str | None]) -> int:
    """Log how often a verifier failed, with its most frequent reasons.

    Args:
        errors: One per text that was read, a reason or from `failed`; None if it did not fail.

    Returns:
        The number of failures.
    """
    reasons = Counter(error.removeprefix(_FAILED) for error in errors if error is not None)
    if not reasons:
        return 0
    shown = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(_NUM_SHOWN))
    more = "" if len(reasons) <= _NUM_SHOWN else "; ..."
    logger.warning(
        "The verifier failed on %d texts, which count as texts without an answer: %s%s",
        reasons.total(),
        shown,
        more,
    )
    return reasons.total()
