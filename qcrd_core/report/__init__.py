"""The result of a run: one self-contained HTML page, and a table for the terminal.

    path = page.write_report(store, run_id)
    text = terminal.terminal_summary(store, run_id)

Both read only the run's tables in the store. Absent values read "not measured".
"""
