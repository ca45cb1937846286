"""The recommendation of a method: what it says when the tables are clear, unclear or empty."""

from pathlib import Path

import pytest

from qcrd_core.bench.recommend import load_recommending, recommendation
from qcrd_core.bench.results import BenchDescription, analyse
from qcrd_core.errors import ConfigError
from tests.support.tables import make_answers, make_cells

QUICKSTART = Path("configs/quickstart.yaml")
DESCRIPTION = BenchDescription(
    name="mine-methods",
    dataset="mine",
    machine="2 CPU cores",
    config="",
    methods={"dss_sc": "", "qcrd": "", "qcrd_false_step": ""},
    references=("dss_sc",),
    share_methods=(),
    confidence=0.95,
)


def _results(num_right):
    """A bench of 100 questions, of which about `num_right[method]` are answered correctly."""
    marks = {}
    for method, right in num_right.items():
        for seed in range(3):
            count = right + (seed if method == "dss_sc" else 0)  # equal differences have no test
            marks[method, 1.0, seed] = "1" * count + "0" * (100 - count)
    cells = [
        {
            "method": method,
            "share": share,
            "seed": seed,
            "seconds": 60.0,
            "num_test": 100,
            "num_correct": mark.count("1"),
        }
        for (method, share, seed), mark in marks.items()
    ]
    return analyse(DESCRIPTION, make_cells(cells), make_answers(marks))


def test_clearly_better_method_is_recommended_with_its_interval_and_the_cost():
    verdict, power = recommendation(
        _results({"dss_sc": 40, "qcrd": 41, "qcrd_false_step": 70})
    ).splitlines()
    assert verdict.startswith(
        "Use qcrd_false_step (`method: qcrd_false_step` in the run's file): +29.0 ["
    )
    assert verdict.endswith("points against dss_sc.")
    assert "with 3 seeds" in power
    assert "9 min" in power
    assert "36 min" in power


def test_without_a_clear_difference_the_simplest_method_is_recommended():
    verdict, _ = recommendation(_results({"dss_sc": 50, "qcrd": 50})).splitlines()
    assert verdict.startswith("Use dss_sc, the simplest: no method is better beyond chance.")


def test_clearly_worse_method_is_not_recommended():
    assert recommendation(_results({"dss_sc": 70, "qcrd": 40})).startswith("Use dss_sc")


def test_bench_without_comparisons_recommends_nothing_yet():
    assert recommendation(_results({"dss_sc": 50})).startswith("No recommendation yet")


def test_methods_fit_the_labels_of_the_run():
    with_gold = load_recommending(QUICKSTART)
    assert "qcrd_false_step" in with_gold.methods
    without = load_recommending(QUICKSTART, ("data.label=majority",))
    assert not {"qcrd_false_step", "dss_gold"} & set(without.methods)
    assert (with_gold.name, with_gold.references) == ("quickstart-methods", ("dss_sc",))


def test_wrong_setting_of_the_run_is_refused():
    with pytest.raises(ConfigError, match=r"negatives\.lag"):
        load_recommending(QUICKSTART, ("negatives.lag=0",))
