"""The flow `audit`, under Prefect's own test server, in a process of its own."""

import os
import re
import subprocess
import sys
from base64 import b64decode
from pathlib import Path
from xml.etree import ElementTree

from qcrd_core.store.store import Store
from tests.support.synthetic_run import RUN_ID, write_synthetic_run

_RUN = """
import sys
from prefect.artifacts import Artifact
from prefect.testing.utilities import prefect_test_harness
from flows.audit import audit

with prefect_test_harness(server_startup_timeout=180):
    page = audit(sys.argv[1])
    print(Artifact.get("audit").data)
    for name in ("agreement", "precision", "samples", "cost", "similar"):
        print(Artifact.get(f"audit-{name}").data)
print(page)
"""


def test_audit_writes_its_page_and_shows_the_tables(tmp_path):
    store = Store(str(tmp_path / "store"), tmp_path / "scratch")
    write_synthetic_run(store)
    root = str(Path(__file__).parents[2])
    quiet = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1", "PYTHONPATH": root}

    done = subprocess.run(
        [sys.executable, "-c", _RUN, f"{store}/runs/{RUN_ID}"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, **quiet, "PREFECT_HOME": str(tmp_path / "prefect")},
        check=False,
    )

    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == f"{store}/runs/{RUN_ID}/audit.html"
    assert store.exists(f"runs/{RUN_ID}/audit.html")
    assert "of 120 held-out questions" in done.stdout
    images = re.findall(r"^!\[.+\]\(data:image/svg\+xml;base64,(.+)\)$", done.stdout, re.M)
    titles = [ElementTree.fromstring(b64decode(image)).get("aria-label") for image in images]
    assert titles == [
        "accuracy of the majority by agreement",
        "share against lowest agreement kept, in tenths",
        "accuracy against samples per question",
        "sampled tokens per question against samples per question",
        "share by kind",
    ]
