"""`docs/papers.md` against the configuration it describes."""

import re
from pathlib import Path

import yaml

from qcrd_core.config.run import RunConfig

PAPERS = Path(__file__).parents[2] / "docs" / "papers.md"
_ROW = re.compile(r"^\| `(\w+)\.(\w+)` \| (.+?) \|", re.MULTILINE)


def test_papers_give_each_setting_the_default_that_the_code_has():
    rows = _ROW.findall(PAPERS.read_text(encoding="utf-8"))
    fields = {
        (section, name): RunConfig.model_fields[section].annotation.model_fields[name]
        for section, name, _ in rows
    }

    documented = {(section, name): value for section, name, value in rows}
    defaults = {
        key: "none" if field.is_required() else field.default for key, field in fields.items()
    }

    assert len(rows) > 30
    assert {key: _read(value) for key, value in documented.items()} == defaults


def _read(value):
    # YAML wants a point in 5e-5.
    return float(value) if re.fullmatch(r"\de-\d", value) else yaml.safe_load(value)
