"""The flow `audit`: can the rationales of a run or of an import be trusted?

`qcrd audit` does the same from the command line.
"""

from prefect import flow

from tasks.auditing import audit_rationales
from tasks.logs import show_core_logs


@flow(name="audit", flow_run_name="audit {target}")
def audit(target: str, generation: str | None = None) -> str:
    """Check the vote against gold, samples per question, duplicates and leaked questions.

    Args:
        target: A run, `<store>/runs/<run id>`, or a store.
        generation: Which generation of the store to check, if it has several.

    Returns:
        Path of audit.html.
    """
    show_core_logs()
    return audit_rationales(target, generation)
