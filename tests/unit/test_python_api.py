"""The names for notebooks: light, complete, and as docs/python.md shows them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import qcrd_core
from tests.support.damage import make_site
from tests.support.synthetic_run import RUN_ID

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


def test_every_name_exists_and_unknown_ones_are_refused():
    assert {name for name in qcrd_core.__all__ if callable(getattr(qcrd_core, name))} == set(
        qcrd_core.__all__
    )
    assert set(qcrd_core.__all__) <= set(dir(qcrd_core))
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        _ = qcrd_core.train


def test_import_loads_none_of_what_the_names_need():
    script = "import sys, qcrd_core; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    ours = {name for name in done.stdout.split() if name.startswith("qcrd_core")}
    assert ours == {"qcrd_core"}
    assert not {"polars", "pydantic", "torch"} & set(done.stdout.split())


def test_examples_of_the_page_run_one_after_the_other(tmp_path, monkeypatch, capsys):
    make_site(tmp_path)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert len(blocks) == 4
    names: dict[str, object] = {}
    for block in blocks:
        code = block.replace(".qcrd/quickstart", "store").replace("runs/RUN", f"runs/{RUN_ID}")
        exec(code.replace('"quickstart"', '"synthetic"'), names)
    assert "pens: 7 train" in capsys.readouterr().out
    assert names["votes"].height == names["difference"].questions.height == 6
    assert set(qcrd_core.__all__) <= set(names)
