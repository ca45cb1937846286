"""Tasks of the flow `redistill-nightly` around the run itself."""

from typing import Any

from qcrd_core.config.run import RunConfig
from qcrd_core.registry import nightly
from qcrd_core.report.run_page import run_page
from tasks.artifacts import decision_artifact
from tasks.references import Student
from tasks.stage import stage


@stage("Look for news")
def look_for_news(config: RunConfig, *, warm_start: bool) -> nightly.Night:
    """Find out whether there is something new to learn from.

    Reads: the data set, table `rationales`, the model's history.
    """
    night = nightly.plan_night(config, warm_start=warm_start)
    if not night.is_new:
        decision_artifact(config, night.news)
    return night


@stage("Decide", "Decide whether to promote the student")
def decide(night: nightly.Night, student: Student) -> dict[str, Any]:
    """Register the student, and promote it if it is better.

    Reads: tables `questions` and `predictions` of both students. Writes: a version, the champion,
    decision.md.
    """
    entry = nightly.decide_night(night, student.run_id)
    context = student.context
    decision = context.store.read_bytes(context.paths.decision).decode()
    decision_artifact(context.config, f"{decision}\n{run_page(context.store, student.run_id)}")
    return {"action": entry.action, "version": entry.version, "reasons": list(entry.reasons)}
