"""The result of a run: one self-contained HTML page, and a table for the terminal.

    path = write_report(store, run_id)
    text = terminal_summary(store, run_id)

Both read only the run's tables in the store. Absent values read "not measured".
"""

from qcrd_core.report.page import write_report
from qcrd_core.report.terminal import terminal_summary

__all__ = ["terminal_summary", "write_report"]
