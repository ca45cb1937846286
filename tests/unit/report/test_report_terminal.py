"""The table for the terminal."""

import pytest
import yaml

from qcrd_core.report.page import write_report
from qcrd_core.report.terminal import terminal_summary
from qcrd_core.run.paths import RunPaths
from qcrd_core.store.store import Store
from tests.support.synthetic_run import CONFIG, RUN_ID, Shape, write_synthetic_run


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"), tmp_path / "scratch")


def test_terminal_summary_with_whole_run_fits_and_names_the_chosen_round(store):
    write_synthetic_run(store, Shape(auc=0.5))
    lines = terminal_summary(store, RUN_ID).splitlines()
    assert max(map(len, lines)) <= 100
    assert "60.0%  (95% interval 51.1% to 68.3%, 72 of 120)" in "\n".join(lines)
    chosen = next(line for line in lines if line.startswith("* ") and "chosen" not in line)
    assert chosen.split()[:2] == ["*", "3"]
    assert any(line.startswith("Warning: The discriminator cannot tell") for line in lines)


def test_terminal_summary_with_many_rounds_counts_those_it_leaves_out(store):
    write_synthetic_run(store, Shape(num_train=6, num_test=6, num_rounds=15, steps_per_round=1))
    text = terminal_summary(store, RUN_ID)
    assert "3 earlier rounds are in the report" in text


def test_terminal_summary_with_config_alone_says_not_measured(store):
    config = {**CONFIG, "teacher": {"model": {"type": "hub", "name": "x\x1b[31m" + "y" * 200}}}
    store.write_bytes(RunPaths(RUN_ID).config, yaml.safe_dump(config).encode())
    text = terminal_summary(store, RUN_ID)
    assert text.count("not measured") == 4
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 100
    assert "Report:" not in text


def test_terminal_summary_after_report_ends_with_its_whole_path(store):
    write_synthetic_run(store, Shape(num_train=6, num_test=6, num_rounds=1, steps_per_round=1))
    rel = write_report(store, RUN_ID)
    assert terminal_summary(store, RUN_ID).endswith(f"Report: {store.local(rel)}")
