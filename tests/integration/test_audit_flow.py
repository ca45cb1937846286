"""The flow `audit`, in a process of its own."""

import re
from base64 import b64decode
from xml.etree import ElementTree

import pytest

from qcrd_core.store.store import Store
from tests.support.distillation import run_script
from tests.support.synthetic_run import RUN_ID, write_synthetic_run

_RUN = """
import sys
from prefect.artifacts import Artifact
from flows.audit import audit

page = audit(sys.argv[1])
print(Artifact.get("audit").data)
for name in ("agreement", "precision", "samples", "cost", "similar"):
    print(Artifact.get(f"audit-{name}").data)
print(page)
"""


@pytest.mark.usefixtures("prefect_server")
def test_audit_writes_its_page_and_shows_the_tables(tmp_path):
    store = Store(str(tmp_path / "store"), tmp_path / "scratch")
    write_synthetic_run(store)
    done = run_script(_RUN, tmp_path, f"{store}/runs/{RUN_ID}")

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
