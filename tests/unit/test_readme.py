"""The README's snippets: other tools read the store's tables, and all see the same rows."""

import glob
import re
from pathlib import Path

import datasets
import duckdb
import pandas
import polars
import pytest

from data_schemas import Rationales
from qcrd_core.store.store import Store
from tests.support.synthetic_run import GENERATION, write_synthetic_run

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
FOLDER = f"datasets/word_problems/rationales/generation={GENERATION}"


def _snippets():
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    first, *others = block.splitlines()
    return first, others


@pytest.mark.parametrize("number", range(4), ids=["polars", "duckdb", "pandas", "datasets"])
def test_other_tools_read_the_rows_qcrd_reads(tmp_path, monkeypatch, number):
    store = Store(str(tmp_path / ".qcrd" / "quickstart"), tmp_path / "scratch")
    write_synthetic_run(store)
    wanted = store.read_table(FOLDER, Rationales)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    names = {
        "datasets": datasets,
        "duckdb": duckdb,
        "glob": glob,
        "pandas": pandas,
        "polars": polars,
    }
    first, snippets = _snippets()
    exec(first, names)

    read = eval(snippets[number], names)

    if isinstance(read, duckdb.DuckDBPyRelation):
        read = read.pl()
    elif isinstance(read, datasets.Dataset):
        read = polars.from_arrow(read.data.table)
    elif isinstance(read, pandas.DataFrame):
        read = polars.from_pandas(read)
    assert len(snippets) == 4
    assert set(read.columns) == set(wanted.columns)
    keys = ["question_id", "sample_idx"]
    same = read.select(wanted.columns).cast(wanted.schema).sort(keys)
    assert same.equals(wanted)
