"""The graph of a flow run as Prefect's UI draws it: which task took what another returned."""

import json
import sqlite3
from pathlib import Path


def edges(prefect_home: Path, flow_name: str) -> set[tuple[str, str]]:
    """Names of tasks, from and to, of the newest run of a flow, read from Prefect's database."""
    newest = """
        SELECT flow_run.id FROM flow_run JOIN flow ON flow.id = flow_run.flow_id
        WHERE flow.name = ? ORDER BY flow_run.created DESC LIMIT 1
    """
    with sqlite3.connect(f"file:{prefect_home / 'prefect.db'}?mode=ro", uri=True) as database:
        (run,) = database.execute(newest, (flow_name,)).fetchone()
        select = "SELECT id, name, task_inputs FROM task_run WHERE flow_run_id = ?"
        rows = database.execute(select, (run,)).fetchall()
    names = {row[0].replace("-", ""): row[1] for row in rows}
    return {
        (names[taken["id"].replace("-", "")], name)
        for _, name, inputs in rows
        for given in json.loads(inputs).values()
        for taken in given
    }
