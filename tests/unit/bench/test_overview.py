"""The first page of the results: what counts, what is bold, and what a task could have shown."""

import pytest

from qcrd_core.bench.overview import draw_overview, overview
from qcrd_core.bench.results import BenchDescription, analyse
from tests.support.tables import make_answers, make_cells


def _bench(name, methods, num_seeds=3):
    """A bench of 200 questions, of which about `methods[method]` are answered correctly."""
    marks = {}
    for method, right in methods.items():
        for seed in range(num_seeds):
            count = right + (seed if method == "dss_sc" else 0)
            marks[method, 1.0, seed] = "1" * count + "0" * (200 - count)
    description = BenchDescription(
        name=name,
        dataset="mine",
        machine="2 CPU cores",
        config="",
        methods=dict.fromkeys(methods, ""),
        references=("dss_sc",) if "dss_sc" in methods else tuple(methods)[:1],
        share_methods=(),
        confidence=0.95,
    )
    cells = [
        {"method": method, "seed": seed, "num_test": 200, "num_correct": mark.count("1")}
        for (method, _, seed), mark in marks.items()
    ]
    return analyse(description, make_cells(cells), make_answers(marks))


def test_overview_counts_our_methods_and_names_what_is_beyond_chance():
    clear = _bench("clear", {"dss_sc": 80, "finetune": 10, "qcrd": 82, "qcrd_verified": 140})
    unclear = _bench("unclear", {"dss_sc": 100, "qcrd": 101})

    text = overview([clear, unclear], "results/overview.svg")

    assert text.startswith("![Difference to DSS-SC by task, with intervals](results/overview.svg)")
    assert (
        "Of 3 comparisons with it on 2 tasks, 1 are above it beyond chance (`qcrd_verified`)"
        in text
    )
    assert "and 0 below." in text
    (row,) = [line for line in text.splitlines() if line.startswith("| `clear`")]
    assert "| 200 x 3 |" in row
    assert "| `qcrd_verified` **+29.5 [" in row
    (row,) = [line for line in text.splitlines() if line.startswith("| `unclear`")]
    assert "**" not in row


def test_drawing_has_the_paper_s_method_and_the_best_of_each_task():
    benches = [
        _bench("one", {"dss_sc": 80, "qcrd": 82, "qcrd_verified": 140}),
        _bench("two", {"dss_sc": 100, "qcrd": 101}),
    ]
    drawing = draw_overview(benches)
    assert drawing is not None
    assert [drawing.count(f">{name}<") for name in ("one", "two", "qcrd", "qcrd_verified")] == [
        2,
        1,
        2,
        1,
    ]


@pytest.mark.parametrize(
    "benches",
    [[], [_bench("other", {"mi": 50, "qcrd": 60})], [_bench("none", {"dss_sc": 50, "dss": 60})]],
    ids=["nothing", "no-reference", "nothing-of-ours"],
)
def test_without_a_comparison_there_is_no_first_page(benches):
    assert overview(benches, None) == ""
    assert draw_overview(benches) is None


def test_one_seed_is_compared_without_an_interval():
    (row,) = [
        line
        for line in overview([_bench("one", {"dss_sc": 80, "qcrd": 82}, 1)], None).splitlines()
        if line.startswith("| `one`")
    ]
    assert row.endswith("one seed | - |")
