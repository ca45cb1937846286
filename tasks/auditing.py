"""Task of the flow `audit`."""

from pathlib import Path

from prefect.artifacts import create_markdown_artifact

from qcrd_core.inspect.audit.audit import audit as check
from qcrd_core.inspect.audit.charts import audit_charts
from qcrd_core.inspect.audit.page import audit_text, write_audit
from qcrd_core.inspect.view import open_view
from qcrd_core.report.svg import in_markdown
from tasks.artifacts import audit_artifact
from tasks.stage import stage

_SCRATCH = Path(".qcrd/scratch")
_SHOWN = {
    "agreement": "Accuracy of the majority answer, by agreement",
    "precision": "Majority answers as labels: precision and coverage",
    "samples": "Accuracy of the majority answer, by samples per question; dashed: the knee",
    "cost": "Tokens per question, by samples per question",
    "similar": "Repeated rationales and leaked questions",
}


@stage("Audit", retries=0)
def audit_rationales(target: str, generation: str | None) -> str:
    """Check a run's rationales, or those of one generation of a store.

    Reads: tables `questions`, `rationales`, `votes`. Writes: audit.html. Shows: its tables and each
    of its charts as an artifact.
    """
    view = open_view(target, _SCRATCH)
    found = check(view, generation)
    page = f"{view.store}/{write_audit(view, found)}"
    audit_artifact(audit_text(found), page)
    for name, chart in audit_charts(found).items():
        image = in_markdown(chart, _SHOWN[name])
        create_markdown_artifact(image, key=f"audit-{name}", description=_SHOWN[name])
    return page
