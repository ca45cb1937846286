"""From a bench's tables to its document, plots and terminal table."""

import re
from xml.dom import minidom

import polars as pl
import pytest

from data_schemas import BenchCells
from qcrd_core.bench.charts import plots, validation_curves
from qcrd_core.bench.config import BenchConfig
from qcrd_core.bench.document import write_results
from qcrd_core.bench.markdown import section
from qcrd_core.bench.results import (
    BenchDescription,
    analyse,
    compared,
    describe,
    read_bench,
    with_others,
    write_bench,
)
from qcrd_core.bench.terminal import terminal_table
from qcrd_core.errors import DataError, StoreError
from qcrd_core.store.store import Store
from tests.support.synthetic_bench import synthetic_bench
from tests.support.tables import make_answers, make_cells

DESCRIPTION = BenchDescription(
    name="tiny",
    dataset="word_problems",
    machine="2 CPU cores",
    config="data: {dataset: word_problems}\n",
    methods={"dss": "one rationale", "qcrd": "the paper's", "mi": "mutual information"},
    references=("dss", "qcrd"),
    share_methods=("dss", "qcrd"),
    confidence=0.95,
)
FEW = {"dss_sc": 0.0, "qcrd": 0.3}
HOSTILE = "Error: a | b\n<script>alert(1)</script> `x` **y** [z](http://w) \x1b[31m"


def tiny(marks, description=DESCRIPTION, **numbers):
    """A bench whose test answers are (method, share, seed) -> marks, or an error's text."""
    cells, answers = [], {}
    for (method, share, seed), mark in marks.items():
        row = {"method": method, "share": share, "seed": seed}
        if set(mark) <= {"0", "1"}:
            answers[method, share, seed] = mark
            row |= {"num_test": len(mark), "num_correct": mark.count("1"), **numbers}
        else:
            row["error"] = mark
        cells.append(row)
    return analyse(description, make_cells(cells), make_answers(answers))


def clear_difference():
    """qcrd is 30 points above dss at every seed; mi failed at seed 1 and is like dss at 0 and 2."""
    marks = {}
    for seed in range(3):
        marks["dss", 1.0, seed] = "1" * (40 + seed) + "0" * (60 - seed)
        marks["qcrd", 1.0, seed] = "1" * (70 + 2 * seed) + "0" * (30 - 2 * seed)
        marks["mi", 1.0, seed] = marks["dss", 1.0, seed] if seed != 1 else HOSTILE
    return marks


def row_of(text, method):
    """Cells of the first table row of a method."""
    line = next(line for line in text.splitlines() if line.startswith(f"| `{method}` |"))
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def test_section_with_clear_difference_marks_it_and_counts_failures():
    text = section(tiny(clear_difference()))
    # dss 40, 41, 42: sd 1, t(2) 4.302653, so 41 -+ 2.48. qcrd 70, 72, 74: 72 -+ 4.97.
    # Differences 30, 31, 32: t = 31 / (1 / sqrt 3) = 53.7, p = 1 - t / sqrt(2 + t^2) = 0.0003.
    dss, qcrd, mi = (row_of(text, name) for name in ("dss", "qcrd", "mi"))
    assert dss[1:4] == ["3", "41.0 ± 1.0", "[38.5, 43.5]"]
    assert dss[4:6] == ["reference", ""]
    assert qcrd[2:4] == ["72.0 ± 2.0", "[67.0, 77.0]"]
    assert re.fullmatch(r"\*\*\+31\.0 \[\+2\d\.\d, \+[34]\d\.\d\]\*\*", qcrd[4])
    assert qcrd[5] == "<0.001"
    assert mi[1:3] == ["2 (1 failed)", "41.0 ± 1.4"]
    assert mi[4:6] == ["+0.0 [+0.0, +0.0]", "-"]
    assert "3 comparisons were made. If no method differed, up to about 0.2 of them" in text
    assert "1 of 9." in text


def test_section_gives_the_notes_of_its_makers_before_the_tables():
    notes = "Seeds differ more than **methods**."
    text = section(tiny(clear_difference(), DESCRIPTION.model_copy(update={"notes": notes})))
    assert f"\n\n{notes}\n\n### Accuracy" in text


def test_section_with_one_seed_says_so():
    text = section(tiny({("dss", 1.0, 4): "1100", ("qcrd", 1.0, 4): "1110"}))
    assert row_of(text, "qcrd")[1:] == ["1", "75.0", "one seed", "+25.0, one seed", "-",
                                        "reference", ""]  # fmt: skip
    assert "1 training" not in text
    assert "4 test questions" in text
    assert ", 1 seed," in text
    assert "by chance" not in text


def test_section_with_no_common_seed_says_so():
    text = section(tiny({("dss", 1.0, 0): "1100", ("qcrd", 1.0, 1): "1110"}))
    assert row_of(text, "qcrd")[4:6] == ["no common seed", "-"]


def test_section_with_equal_seeds_has_no_interval_of_the_mean():
    text = section(tiny({(name, 1.0, seed): "1010" for name in ("dss", "qcrd") for seed in (0, 1)}))
    assert row_of(text, "dss")[2:4] == ["50.0 ± 0.0", "equal seeds"]
    assert row_of(text, "qcrd")[4:6] == ["+0.0 [+0.0, +0.0]", "-"]


def test_section_with_hostile_error_keeps_tables_whole_and_text_inert():
    text = section(tiny(clear_difference()))
    assert "<script>" not in text
    assert "\x1b" not in text
    assert r"a \| b \<script\>alert(1)\</script\> \`x\` \*\*y\*\* \[z\](http://w)" in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        bars = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(bars) == 1, table


def test_cost_table_has_means_over_seeds_and_dashes_where_nothing_was_measured():
    marks = {("dss", 1.0, 0): "10", ("dss", 1.0, 1): "11", ("qcrd", 1.0, 0): HOSTILE}
    results = tiny(marks, seconds=90.0, num_steps=1200, active_hinge_share=0.25, auc_correct=0.5)
    cells = results.cells.with_columns(
        peak_memory_bytes=pl.when(pl.col("status") == "ok").then(
            (1 + pl.col("seed").cast(pl.Int64)) * 2**30
        )
    )
    text = section(analyse(DESCRIPTION, cells, results.answers)).split("### Cost")[1]
    assert row_of(text, "dss")[1:] == ["1 min 30 s", "1,200", "-", "-", "1.50 GiB", "25.0%", "-",
                                       "-", "0.50"]  # fmt: skip
    assert row_of(text, "qcrd")[1:] == ["-"] * 9


def test_share_table_compares_at_each_share_and_names_its_questions():
    results = synthetic_bench(errors={("qcrd", 0.25, 0): HOSTILE})
    text = section(results).split("### Share")[1].split("### ")[0]
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")][2:]
    assert [row[0].strip("| ") for row in rows] == [f"{p}%" for p in (25, 25, 50, 50, 75, 75, 100,
                                                                     100)]  # fmt: skip
    assert rows[0][1:4] == ["250", "`dss_sc`", "5"]
    assert rows[1][1:4] == ["250", "`qcrd`", "4 (1 failed)"]
    assert rows[0][8].endswith(", 4 common seeds")
    summary = results.summaries["dss_sc", 0.25]
    assert rows[0][4] == f"{summary.mean * 100:.1f} ± {summary.standard_deviation * 100:.1f}"


def test_mcnemar_table_has_each_pair_once():
    text = section(tiny(clear_difference())).split("McNemar")[1].split("</details>")[0]
    rows = [re.findall(r"[\w.<]+", line) for line in text.splitlines() if line.startswith("| `")]
    assert [row[:3] for row in rows] == [
        *[["qcrd", "dss", str(seed)] for seed in range(3)],
        *[["mi", "dss", str(seed)] for seed in (0, 2)],
        *[["mi", "qcrd", str(seed)] for seed in (0, 2)],
    ]
    assert rows[0][3:] == ["30", "0", "<0.001"]


def test_bench_without_any_good_cell_is_shown_as_such():
    results = tiny({("dss", 1.0, 0): HOSTILE, ("qcrd", 1.0, 0): HOSTILE})
    assert plots(results) == {}
    assert row_of(section(results, "results/tiny"), "dss")[1:4] == ["0 (1 failed)", "-", "-"]
    assert row_of(section(results), "mi")[1:4] == ["0", "-", "-"]
    assert "2 cells of 2 failed:" in terminal_table(results)


def test_document_holds_every_bench_and_is_made_from_files_alone(tmp_path):
    store = Store(str(tmp_path / "docs"), tmp_path / "scratch")
    for name in ("word_problems", "svamp"):
        write_bench(store, f"results/{name}", synthetic_bench(name=name, skills=FEW, num_test=30))
    assert write_results(store, "results") == "results.md"
    document = (tmp_path / "docs" / "results.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", document, re.MULTILINE) == [
        "How to read this page",
        "svamp",
        r"word\_problems",
    ]
    links = re.findall(r"!\[.*?\]\((.*?)\)", document)
    assert len(links) == 7
    before = {link: (tmp_path / "docs" / link).read_bytes() for link in links}
    write_results(store, "results")
    assert (tmp_path / "docs" / "results.md").read_text(encoding="utf-8") == document
    assert before == {link: (tmp_path / "docs" / link).read_bytes() for link in links}


def test_stored_bench_is_read_as_it_was(tmp_path):
    store = Store(str(tmp_path / "store"), tmp_path / "scratch")
    results = synthetic_bench(skills=FEW, errors={("qcrd", 1.0, 2): HOSTILE})
    write_bench(store, "bench/word_problems", results)
    stored = read_bench(store, "bench/word_problems")
    assert stored.description == results.description
    assert section(stored) == section(results)


def test_description_with_unknown_key_is_refused(tmp_path):
    store = Store(str(tmp_path / "store"), tmp_path / "scratch")
    write_bench(store, "bench/tiny", tiny(clear_difference()))
    content = store.read_json("bench/tiny/bench.json", dict)
    store.write_json("bench/tiny/bench.json", {**content, "colour": "red"})
    with pytest.raises(StoreError, match="as qcrd wrote it; got another content: colour: "):
        read_bench(store, "bench/tiny")


def test_describe_takes_methods_in_the_order_of_the_bench():
    base = {"data": {"dataset": "svamp"}}
    bench = BenchConfig(name="b", base=base, methods=("qcrd", "dss_sc"), references=("dss_sc",))
    described = describe(bench, "2 CPU cores")
    assert list(described.methods) == ["qcrd", "dss_sc"]
    assert (described.dataset, described.config) == ("svamp", "data:\n  dataset: svamp\n")


@pytest.mark.parametrize("change", ["no-answers", "other-answers", "answers-of-none"])
def test_tables_that_contradict_each_other_are_refused(change):
    results = tiny({("dss", 1.0, 0): "1100", ("qcrd", 1.0, 0): "1110"})
    cells, answers = results.cells, results.answers
    is_dss = pl.col("method") == "dss"
    if change == "no-answers":
        answers = answers.filter(~is_dss)
    elif change == "other-answers":
        answers = answers.with_columns(is_correct=pl.col("is_correct") | is_dss)
    else:
        cells = cells.filter(~is_dss)
    with pytest.raises(DataError, match="contradict each other: for dss at share"):
        analyse(DESCRIPTION, cells, answers)


def test_cell_of_undescribed_method_is_refused():
    with pytest.raises(DataError, match=r"bench tiny name methods .* does not describe: other"):
        tiny({("other", 1.0, 0): "10"})


def test_validation_curve_has_the_rounds_that_all_seeds_have():
    cells = make_cells(
        [
            {"method": "dss", "seed": 0, "validation_accuracy": [0.1, 0.4, 0.9]},
            {"method": "dss", "seed": 1, "validation_accuracy": [0.3, 0.5]},
            {"method": "dss", "seed": 0, "share": 0.5, "validation_accuracy": [0.0]},
        ]
    )
    answers = {("dss", share, seed): "1111100000" for share, seed in ((1.0, 0), (1.0, 1), (0.5, 0))}
    results = analyse(DESCRIPTION, cells, make_answers(answers))
    assert validation_curves(results) == {"dss": [pytest.approx(0.2), pytest.approx(0.45)]}
    assert "The curves of `dss` leave out rounds" in section(results, "results/tiny")


def test_plots_are_whole_images_with_an_opaque_ground(tmp_path):
    store = Store(str(tmp_path / "docs"), tmp_path / "scratch")
    hostile = '<b onload="x">&\x1b'
    results = synthetic_bench(skills={"dss_sc": 0.0, "qcrd": 0.3, hostile: 0.1})
    write_bench(store, "results/word_problems", results)
    write_results(store, "results")
    for name in ("accuracy", "shares", "validation"):
        text = store.read_bytes(f"results/word_problems/{name}.svg").decode()
        image = minidom.parseString(text).documentElement
        ground = image.getElementsByTagName("rect")[0]
        assert image.namespaceURI == "http://www.w3.org/2000/svg"
        assert [ground.getAttribute(key) for key in ("width", "height", "fill")] == [
            "100%",
            "100%",
            "var(--card)",
        ]
        assert "href" not in text
        assert "url(" not in text


def test_accuracy_plot_with_equal_accuracies_keeps_its_axis_in_range():
    results = tiny({(name, 1.0, seed): "1111" for name in ("dss", "qcrd") for seed in (0, 1)})
    drawn = plots(results)["accuracy"]
    shown = re.findall(r">([\d.]+)%<", drawn)
    assert float(shown[-1]) == 100
    assert float(shown[0]) >= 98


def test_terminal_table_fits_and_says_what_failed():
    lines = terminal_table(synthetic_bench(errors={("mi", 1.0, 3): HOSTILE})).splitlines()
    assert max(map(len, lines)) <= 100
    assert next(line.split()[1] for line in lines if line.startswith("mi ")) == "4/5"
    assert lines[-2] == "1 cell of 75 failed:"
    assert lines[-1].startswith("  mi, 100%, seed 3: Error: a | b <script>")
    assert "\x1b" not in "\n".join(lines)


def test_terminal_table_marks_what_is_significant():
    lines = terminal_table(tiny(clear_difference())).splitlines()
    qcrd = next(line for line in lines if line.startswith("qcrd "))
    assert re.search(r" 3/3  72\.0 ± 2\.0  \[67\.0, 77\.0\] +\+31\.0 \[.*\]\*$", qcrd)
    mi = next(line for line in lines if line.startswith("mi "))
    assert re.search(r" 2/3 .* \+0\.0 \[\+0\.0, \+0\.0\] +-31\.0 \[.*\]\*$", mi)


def test_terminal_table_with_long_names_and_many_references_fits():
    names = [f"a_variant_with_a_very_long_name_{i}" for i in range(4)]
    changed = {"methods": dict.fromkeys(names, "long"), "references": names, "share_methods": []}
    description = BenchDescription.model_validate({**DESCRIPTION.model_dump(), **changed})
    marks = {(name, 1.0, seed): "1010" for name in names for seed in (0, 1)}
    lines = terminal_table(tiny(marks, description)).splitlines()
    assert max(map(len, lines)) <= 100
    assert sum(line.startswith("method") for line in lines) == 2


def test_answers_by_another_kind_of_inference_have_their_own_table():
    results = tiny(clear_difference())
    assert compared(results) is None
    assert "explain_then_predict" not in section(results)

    # Asked to explain first, qcrd is always wrong and dss always right.
    is_dss = pl.col("method") == "dss"
    cells = results.cells.filter(pl.col("method") != "mi").with_columns(
        compared=pl.lit("explain_then_predict"),
        num_correct_compared=pl.when(is_dss).then("num_test").otherwise(0),
    )
    answers = results.answers.filter(pl.col("method") != "mi").with_columns(
        is_correct_compared=is_dss
    )
    both = analyse(DESCRIPTION, BenchCells.validate(cells, cast=True), answers)

    other = compared(both)
    assert other is not None
    assert other.summaries["dss", 1.0].mean == pytest.approx(1.0)
    assert other.comparisons["qcrd", "dss", 1.0].difference == pytest.approx(-1.0)
    assert both.comparisons["qcrd", "dss", 1.0].difference > 0
    text = section(both)
    _, after = text.split("### Accuracy by `explain_then_predict`\n", 1)
    assert "they explain first" in after
    assert "-100.0" in after.split("### ")[0]


def test_cells_of_another_process_stay_and_those_of_other_settings_go(tmp_path):
    store = Store(str(tmp_path / "store"), tmp_path / "scratch")
    write_bench(store, "bench/tiny", tiny({("dss", 1.0, 0): "1100", ("qcrd", 1.0, 0): "1000"}))
    ours = tiny({("qcrd", 1.0, 0): "1110", ("qcrd", 1.0, 1): "1111"})

    both = with_others(store, "bench/tiny", DESCRIPTION, ours.cells, ours.answers)
    results = analyse(DESCRIPTION, *both)
    changed = DESCRIPTION.model_copy(update={"config": "data: {dataset: svamp}\n"})
    alone, _ = with_others(store, "bench/tiny", changed, ours.cells, ours.answers)

    counts = results.cells.select("method", "seed", "num_correct").sort("method", "seed").rows()
    assert counts == [("dss", 0, 2), ("qcrd", 0, 3), ("qcrd", 1, 4)]
    assert alone.equals(ours.cells)
