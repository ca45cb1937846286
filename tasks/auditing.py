"""Task of the flow `audit`."""

from pathlib import Path

from qcrd_core.audit.audit import audit as check
from qcrd_core.audit.page import audit_text, write_audit
from qcrd_core.inspect.view import open_view
from tasks.artifacts import audit_artifact
from tasks.stage import stage

_SCRATCH = Path(".qcrd/scratch")


@stage("Audit", retries=0)
def audit_rationales(target: str, generation: str | None) -> str:
    """Check a run's rationales, or those of one generation of a store.

    Reads: tables `questions`, `rationales`, `votes`. Writes: audit.html.
    """
    view = open_view(target, _SCRATCH)
    found = check(view, generation)
    page = f"{view.store}/{write_audit(view, found)}"
    audit_artifact(audit_text(found), page)
    return page
