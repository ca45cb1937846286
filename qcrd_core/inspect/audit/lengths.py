"""How many rationales are too long for the student, and what to do about it."""

from dataclasses import dataclass
from typing import Any

import polars as pl

from qcrd_core.config.models import StudentSection
from qcrd_core.teacher.condense import SUGGEST_ABOVE, share_too_long


@dataclass(frozen=True)
class Lengths:
    """The share of long rationales."""

    limit: int
    """`student.max_target_tokens` of the run, or its default for a store."""
    share: float | None
    """Share of the rationales that are longer, estimated; None without rationales."""
    is_condensed: bool
    """Whether the run has long rationales rewritten."""

    @property
    def summary(self) -> str:
        """The share in one line."""
        share = "no" if self.share is None else f"about {self.share:.0%} of the"
        return (
            f"{share} rationales are longer than student.max_target_tokens = {self.limit} "
            "(estimated at 4 bytes per token)"
        )

    @property
    def problems(self) -> list[str]:
        """What to do if many are too long."""
        if self.is_condensed or (self.share or 0.0) <= SUGGEST_ABOVE:
            return []
        return [
            "The student leaves out what is too long. Set teacher.condense.max_tokens to have it "
            "rewritten, or raise student.max_target_tokens."
        ]


def find_lengths(rationales: pl.Series, settings: dict[str, Any]) -> Lengths:
    """Estimate how many rationales are too long.

    Args:
        rationales: Texts as they are taught.
        settings: Settings of the run; empty for a store.

    Returns:
        The share.
    """
    default = StudentSection.model_fields["max_target_tokens"].default
    limit = settings.get("student", {}).get("max_target_tokens", default)
    is_condensed = settings.get("teacher", {}).get("condense") is not None
    return Lengths(limit, share_too_long(rationales, limit), is_condensed)
