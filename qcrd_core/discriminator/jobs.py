"""The discriminator's job of a round: its inputs, and the function that a child process runs.

The stages import this module, so it loads no engine; the function imports it in the child process.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qcrd_core.run.context import RunJob
from qcrd_core.runtime.processes import Emit


@dataclass(frozen=True)
class ScoreRationales(RunJob):
    """Training the discriminator and scoring the candidates of one round."""

    round: int
    """The round that trains on the scores."""
    candidates: Path
    """Parquet file of the columns in `qcrd_core.vote.candidates.CANDIDATE_COLUMNS`."""
    tokenizer: Path
    """Folder of the discriminator's tokenizer."""


def score_rationales(job: ScoreRationales, emit: Emit) -> dict[str, Any]:
    """Run `qcrd_core.discriminator.score.score_rationales`."""
    from qcrd_core.discriminator import score

    return score.score_rationales(job, emit)
