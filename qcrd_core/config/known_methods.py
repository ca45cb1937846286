"""Methods by name, as settings: each is this project's own loop with other options.

    METHODS["dss_sc"].settings   {"negatives.student": False, ..., "loss.pos_select": "sample"}
    method: dss_sc               the same in a run's file

In a bench, all learn from the same rationales for the same number of optimiser steps and are
evaluated alike.
Source: QCRD (arXiv 2405.13014), tables 1 to 5, and the papers named below.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

MethodName = Literal[
    "finetune",
    "single_task",
    "dss",
    "dss_sc",
    "mi",
    "dss_gold",
    "qcrd",
    "qcrd_cross_fit",
    "qcrd_no_quality",
    "qcrd_no_negatives",
    "qcrd_verified",
    "qcrd_promoted",
    "qcrd_false_step",
    "rft",
    "simpo",
]


@dataclass(frozen=True)
class Method:
    """What a method sets on top of a configuration."""

    description: str
    """One line for tables."""
    settings: Mapping[str, Any]
    """Dotted settings."""


_NO_NEGATIVES = {
    "negatives.teacher_minority": False,
    "negatives.student": False,
    "loss.beta": 0.0,
}
_NO_QUALITY = {"loss.quality_weights": False}
_PAPER = {"discriminator.fit": "paper"}
_LABEL_ALONE = {
    "student.predict_prefix": "",
    "loss.alpha_label": 1.0,
    "loss.alpha_contrastive": 0.0,
}
_PROMOTED = {
    **_NO_QUALITY,
    "voting.positives": "gold",
    "negatives.lag": 1,
    "negatives.sampling_temperature": 1.0,
    "negatives.num_samples": 3,
    "negatives.verify": "promote",
    "loss.pos_select": "sample",
}
_VERIFIED = {**_PROMOTED, "negatives.verify": "drop", "loss.neg_select": "sample"}
_ONE_RATIONALE = {"voting.positives": "first_sample"}

METHODS: Mapping[str, Method] = {
    "finetune": Method(
        "the label alone, without prefix",
        {**_NO_NEGATIVES, **_NO_QUALITY, **_LABEL_ALONE},
    ),
    "single_task": Method(
        "the teacher's first rationale and then the label, as one text without prefix",
        {
            **_NO_NEGATIVES,
            **_NO_QUALITY,
            **_LABEL_ALONE,
            **_ONE_RATIONALE,
            "student.target": "rationale_and_label",
        },
    ),
    "dss": Method(
        "Distilling Step-by-Step (arXiv 2305.02301): label and the teacher's first rationale",
        {**_NO_NEGATIVES, **_NO_QUALITY, **_ONE_RATIONALE},
    ),
    "dss_sc": Method(
        "DSS with all self-consistent rationales, one of them drawn per step",
        {**_NO_NEGATIVES, **_NO_QUALITY, "loss.pos_select": "sample"},
    ),
    "mi": Method(
        "mutual information (arXiv 2403.03348) as released: DSS and 0.1 of its term",
        {
            **_NO_NEGATIVES,
            **_NO_QUALITY,
            **_ONE_RATIONALE,
            "loss.beta_mutual_information": 0.1,
        },
    ),
    "dss_gold": Method(
        "DSS-SC on the rationales whose answer is the gold one",
        {
            **_NO_NEGATIVES,
            **_NO_QUALITY,
            "loss.pos_select": "sample",
            "voting.positives": "gold",
        },
    ),
    "qcrd": Method("QCRD's equation 8 as in the paper", _PAPER),
    "qcrd_cross_fit": Method(
        "QCRD with cross-fitted scores, scaled to a mean of 1", {"discriminator.fit": "cross_fit"}
    ),
    "qcrd_no_quality": Method("QCRD without the discriminator (-QJ): s = 1 and 0", _NO_QUALITY),
    # The discriminator still learns from them: -NK takes away the term, nothing else.
    "qcrd_no_negatives": Method(
        "QCRD without the negative term (-NK)", {**_PAPER, "loss.beta": 0.0}
    ),
    "qcrd_verified": Method(
        "beyond the paper: gold positives, several wrong rationales of the newest student",
        _VERIFIED,
    ),
    "qcrd_promoted": Method(
        "the same, and the student's right rationales become positives",
        {**_PROMOTED, "loss.neg_select": "sample"},
    ),
    "qcrd_false_step": Method(
        "qcrd_promoted, which pushes negatives off from their first false step on",
        {**_PROMOTED, "loss.neg_select": "sample", "loss.neg_tokens": "after_false_step"},
    ),
    "rft": Method(
        "rejection-sampling fine-tuning (arXiv 2308.01825): right rationales, the student's too",
        {**_PROMOTED, "negatives.teacher_minority": False, "loss.beta": 0.0},
    ),
    "simpo": Method(
        "SimPO (arXiv 2405.14734) on the pairs of qcrd_verified, with the pull to positives",
        {**_VERIFIED, "loss.neg_loss": "pairwise", "loss.delta": 0.5, "loss.beta": 1.0},
    ),
}


def with_method(content: Mapping[str, Any]) -> dict[str, Any]:
    """Add the settings of the method that a run names.

    A method means what a bench measured under its name, so no setting may contradict it.

    Args:
        content: Nested settings of a run.

    Returns:
        A copy with the method's settings; the same settings if it names no known method.

    Raises:
        ValueError: If a setting has another value than the method's.
    """
    method = METHODS.get(str(content.get("method")))
    if method is None:
        return dict(content)
    expanded, contradictions = dict(content), []
    for name, value in method.settings.items():
        section, _, key = name.rpartition(".")
        if not isinstance(written := expanded.get(section) or {}, Mapping):
            return dict(content)  # whoever validates the section refuses it
        present = dict(written)
        if present.setdefault(key, value) != value:
            contradictions.append(f"{name} to {value}, and it is {present[key]}")
        expanded[section] = present
    if contradictions:
        msg = (
            f"method={content['method']} sets {'; '.join(contradictions)}. Leave out the method or "
            "the setting"
        )
        raise ValueError(msg)
    return expanded
