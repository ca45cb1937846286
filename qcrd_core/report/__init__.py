"""What a run came to: one self-contained HTML page and a table for the terminal.

    path = write_report(store, run_id)
    text = terminal_summary(store, run_id)

Both read the run's tables in the store and nothing else; what is absent is "not measured".
"""

from qcrd_core.report.page import write_report
from qcrd_core.report.terminal import terminal_summary

__all__ = ["terminal_summary", "write_report"]
