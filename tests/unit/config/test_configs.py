"""Shipped recipes: each loads, and its data set is a shipped one."""

from pathlib import Path

import pytest

from qcrd_core.bench.config import load_bench
from qcrd_core.config.run import load_config
from qcrd_core.data.spec import load_spec

FOLDER = Path(__file__).parents[3] / "configs"
BENCHES = sorted(FOLDER.glob("bench_*.yaml"))
RUNS = sorted(set(FOLDER.glob("*.yaml")) - set(BENCHES))


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_shipped_config_loads_with_its_data_set(path):
    config = load_config(path)

    assert load_spec(config.data.dataset).name == config.data.dataset
    assert config.run.name == path.stem


@pytest.mark.parametrize("path", BENCHES, ids=lambda path: path.stem)
def test_shipped_bench_loads_with_all_its_cells(path):
    bench = load_bench(path)

    cells = list(bench.cells(num_train=100))
    assert {cell.method for cell in cells} == set(bench.methods)
    assert f"bench_{bench.name}" == path.stem
    assert len({(cell.method, cell.share, cell.seed) for cell in cells}) == len(cells)
