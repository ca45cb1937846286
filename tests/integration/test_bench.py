"""`qcrd bench` at tiny size: methods in the real loop, a cell that fails, a second start."""

import re
from pathlib import Path

import polars as pl
import pytest
import yaml

from data_schemas import BenchAnswers, BenchCells
from qcrd_core.config.known_methods import METHODS
from qcrd_core.store.store import Store
from tests.support.distillation import NUM_TEST, qcrd, settings_for, start_qcrd, taught_teacher

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("prefect_server")]

SHORT = {"description": "no question fits", "settings": {"student.max_input_tokens": 8}}


@pytest.fixture(scope="module")
def bench(tmp_path_factory, prefect_server):  # noqa: ARG001  (its environment is used)
    """A bench of the methods that differ in what is trained, started twice."""
    folder = tmp_path_factory.mktemp("bench")
    training = {"num_rounds": 1, "steps_per_round": 3}
    content = {
        "name": "tiny",
        "run": "run.yaml",
        "methods": ["single_task", "short", "mi", "dss_sc"],
        "variants": {"short": SHORT},
        "seeds": [1],
        "references": ["dss_sc"],
    }
    with taught_teacher() as engine:
        run = settings_for(folder, engine, training=training)
        (folder / "run.yaml").write_text(yaml.safe_dump(run), encoding="utf-8")
        (folder / "bench.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
        first = qcrd("bench", "--config", folder / "bench.yaml")
        num_asked = engine.num_asked
        second = qcrd("bench", "--config", folder / "bench.yaml", "--publish", folder / "docs")
        assert engine.num_asked == num_asked
    store = Store(run["run"]["store"], folder / "scratch")
    return store, first, second, num_asked


def _tables(store):
    return (
        store.read_table("bench/tiny/cells.parquet", BenchCells),
        store.read_table("bench/tiny/answers.parquet", BenchAnswers),
    )


def test_methods_learn_from_the_same_samples_and_are_tested_alike(bench):
    store, first, _, num_asked = bench
    cells, answers = _tables(store)

    assert first.returncode == 0, first.stderr
    good = cells.filter(pl.col("status") == "ok")
    assert good["method"].sort().to_list() == ["dss_sc", "mi", "single_task"]
    assert good["num_steps"].unique().to_list() == [3]
    assert good["num_test"].unique().to_list() == [NUM_TEST]
    assert good["num_teacher_tokens"].n_unique() == 1
    assert num_asked == 5 * 24
    assert answers.group_by("method").len()["len"].unique().to_list() == [NUM_TEST]


def test_cell_that_fails_is_a_row_and_stops_no_other(bench):
    cells, _ = _tables(bench[0])

    row = cells.filter(pl.col("status") == "failed").row(0, named=True)
    assert row["method"] == "short"
    assert "student.max_input_tokens" in row["error"]
    assert row["num_correct"] is None


def test_second_start_runs_only_what_failed(bench):
    _, _, second, _ = bench

    assert second.returncode == 0, second.stderr
    assert "cells           4, of which 3 are done" in second.stdout


def test_results_are_a_table_a_page_and_a_copy_of_it(bench):
    store, first, second, _ = bench

    assert re.search(r"mi +1/1 +\d+\.\d", first.stdout)
    assert first.stdout.splitlines()[-1] == f"{store}/bench.md"
    page = Path(second.stdout.splitlines()[-1])
    assert page.parts[-2:] == ("docs", "results.md")
    assert "| `single_task` |" in page.read_text(encoding="utf-8")
    assert (page.parent / "results/tiny/accuracy.svg").exists()


def test_published_cells_are_not_run_again_in_a_new_store(bench):
    store, *_ = bench
    folder = Path(str(store)).parent

    done = qcrd(
        "bench",
        "--config",
        folder / "bench.yaml",
        "--publish",
        folder / "docs",
        "--dry-run",
        f"run.store={folder / 'elsewhere'}",
    )

    assert "cells           4, of which 3 are done" in done.stdout


def test_benches_started_at_once_share_the_cells(tmp_path):
    content = {"name": "tiny", "run": "run.yaml", "methods": ["finetune"], "seeds": [0, 1, 2]}
    training = {"num_rounds": 1, "steps_per_round": 3}
    with taught_teacher() as engine:
        run = settings_for(tmp_path, engine, training=training)
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(run), encoding="utf-8")
        bench = {**content, "references": ["finetune"]}
        (tmp_path / "bench.yaml").write_text(yaml.safe_dump(bench), encoding="utf-8")
        first = qcrd("run", "--config", tmp_path / "run.yaml")  # samples for both
        assert first.returncode == 0, first.stderr
        logs = [tmp_path / f"{number}.log" for number in range(2)]
        both = [start_qcrd("bench", "--config", tmp_path / "bench.yaml", log=log) for log in logs]
        assert [process.wait(timeout=400) for process in both] == [0, 0]

    cells, answers = _tables(Store(run["run"]["store"], tmp_path / "scratch"))
    assert cells["status"].to_list() == ["ok"] * 3
    assert answers.height == 3 * NUM_TEST
    begun = [re.findall(r"Beginning .* 'distill tiny-finetune'", log.read_text()) for log in logs]
    assert all(begun)
    assert sum(map(len, begun)) == 3


def test_single_task_writes_rationale_and_label(bench):
    store, *_ = bench
    cells, _ = _tables(store)
    run_id = cells.filter(pl.col("method") == "single_task")["run_id"].item()

    about = store.read_json(f"runs/{run_id}/student/qcrd.json", dict)

    assert METHODS["single_task"].settings["student.target"] == "rationale_and_label"
    assert about["predict_prefix"] == ""
    assert about["answer"]["marker"] == "The answer is"
    assert about["max_new_tokens"] == 256
