"""Ticks, scales and labels of the charts, and texts as they are shown."""

import re
from itertools import pairwise

import pytest

from qcrd_core.report.plots import (
    Axis,
    Group,
    Line,
    Whisker,
    histogram_rows,
    line_chart,
    share_rows,
)
from qcrd_core.report.svg import WIDTH, share_text, standalone, ticks
from qcrd_core.report.text import clip, number, percent, plain_name, seconds, visible


@pytest.mark.parametrize(
    ("low", "high", "whole", "expected"),
    [
        (0, 1, False, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0, 0.43, False, [0, 0.1, 0.2, 0.3, 0.4, 0.5]),
        (-0.5, 2.1, False, [-1, 0, 1, 2, 3]),
        (0, 7, True, [0, 2, 4, 6, 8]),
        (0, 1, True, [0, 1]),
        (3, 3, False, [3, 3.0000000002]),
        (0, 320, True, [0, 100, 200, 300, 400]),
    ],
)
def test_ticks_cover_range_with_round_numbers(low, high, whole, expected):
    assert ticks(low, high, whole=whole) == pytest.approx(expected)


def coordinates(svg):
    return [float(v) for v in re.findall(r"""\b(?:x|y|cx|cy|x1|x2|y1|y2)="([-\d.]+)\"""", svg)]


def test_line_chart_with_two_lines_stays_inside_and_labels_both():
    lines = [Line("first", [0, 1, 2], [0.0, 5.0, 1.0]), Line("second", [0, 2], [1.0, 1.01], 1)]
    svg = line_chart(lines, Axis("round"), Axis("nats", low=0))
    assert ">first</text>" in svg
    assert ">second</text>" in svg
    assert 0 <= min(coordinates(svg)) <= max(coordinates(svg)) <= 520


def test_line_chart_with_equal_line_ends_keeps_labels_apart():
    lines = [Line(f"line {i}", [0, 1], [0.0, 0.0], i) for i in range(3)]
    svg = line_chart(lines, Axis("round"), Axis("nats", low=0, high=1))
    heights = [float(y) for y in re.findall(r'y="([\d.]+)" class="label', svg)]
    assert [round(b - a) for a, b in pairwise(heights)] == [15, 15]


@pytest.mark.parametrize("value", [0.0, 1.0, -2.5])
def test_line_chart_with_one_point_draws_it(value):
    svg = line_chart([Line("only", [3], [value])], Axis("round"), Axis("nats"))
    assert svg.count("<circle") == 1
    assert "nan" not in svg


def test_histogram_rows_with_scores_at_both_ends_counts_them():
    svg = histogram_rows([Group("g", "n = 4", [0.0, 1.0, 1.0, 0.5], 0)], "quality score", 4)
    said = re.findall(r"<title>(.*?)</title>", svg)
    assert said == [
        "0.00 to 0.25: 25.0%",
        "0.25 to 0.50: 0.0%",
        "0.50 to 0.75: 25.0%",
        "0.75 to 1.00: 50.0%",
    ]


def test_share_rows_with_markup_in_a_name_escapes_it():
    svg = share_rows([Whisker("<b onload='x'>", "1 of 2", 0.5, (0.1, 0.9))], "accuracy", "slice")
    assert "<b" not in svg
    assert "&lt;b onload=" in svg


def test_share_rows_on_given_marks_spans_them_and_draws_seeds():
    rows = [Whisker("a", "n", 0.5, None, [0.45, 0.55]), Whisker("b", "n", 0.55, (0.5, 0.6))]
    svg = share_rows(rows, "accuracy", "method", marks=[0.4, 0.5, 0.6])
    assert re.findall(r">([\d.]+%)<", svg) == ["40%", "50%", "60%"]
    singles = [float(x) for x in re.findall(r'cx="([\d.]+)" cy="[\d.]+" r="2"', svg)]
    means = [float(x) for x in re.findall(r'cx="([\d.]+)" cy="[\d.]+" r="4.5"', svg)]
    assert means[0] == pytest.approx(sum(singles) / 2)
    assert means[1] == singles[1]
    assert svg.count('class="whisker"') == 1


def test_line_chart_with_many_lines_and_long_names_stays_inside():
    lines = [Line(f"variant_with_a_long_name_{i}", [0, 1], [0.5, 0.5 + i / 99]) for i in range(16)]
    svg = line_chart(lines, Axis("round"), Axis("accuracy", is_share=True), height=330)
    labels = re.findall(r'x="([\d.]+)" y="([\d.]+)" class="label[^>]*>([^<]*)<', svg)
    assert min(float(y) for _, y, _ in labels) > 14
    assert max(float(y) for _, y, _ in labels) < 330
    assert max(float(x) + 7.2 * len(name) for x, _, name in labels) <= WIDTH


def test_line_chart_with_marks_and_dashes_has_them():
    line = Line("only", [0.25, 1.0], [0.1, 0.2], is_dashed=True)
    x_axis = Axis("share", is_share=True, marks=[0.25, 1.0])
    svg = line_chart([line], x_axis, Axis("accuracy", is_share=True, marks=[0.1, 0.125, 0.2]))
    assert re.findall(r">([\d.]+%)<", svg) == ["10%", "12.5%", "20%", "25%", "100%"]
    assert 'class="curve tone-0 dashed"' in svg


def test_share_text_has_decimals_only_where_needed():
    assert [share_text(v) for v in (0.0, 0.29, 0.825, 1.0)] == ["0%", "29%", "82.5%", "100%"]


def test_standalone_keeps_the_drawing_and_covers_its_ground():
    svg = share_rows([Whisker('a > "b"', "n", 0.5, (0.1, 0.9))], "accuracy", "slice")
    image = standalone(svg)
    x, y, width, height = map(float, re.search(r'viewBox="([^"]*)"', image)[1].split())
    inner = float(re.search(r'viewBox="0 0 520 ([\d.]+)"', svg)[1])
    assert (x, y, width, height) == (-12, -12, 544, pytest.approx(inner + 24))
    assert '<rect x="-12" y="-12" width="100%" height="100%"' in image
    assert svg.split(">", 1)[1].removesuffix("</svg>") in image


def test_numbers_are_shown_for_readers():
    assert [percent(0.1234), percent(None)] == ["12.3%", "not measured"]
    assert [number(12000.0), number(0.5), number(None)] == ["12,000", "0.500", "not measured"]
    assert [seconds(59.94), seconds(61), seconds(3725)] == ["59.9 s", "1 min 01 s", "1 h 02 min"]
    assert plain_name("num_rationales_too_long") == "rationales too long"


def test_visible_keeps_newlines_and_letters_of_any_script():
    assert visible("naïve\t日本\n\x07\u2028\ud800") == "naïve\t日本\n\\u0007\\u2028\\ud800"


def test_clip_with_long_text_says_how_much_is_gone():
    assert clip("x" * 1500) == "x" * 1500
    assert clip("x" * 3000).endswith("… (1,500 more characters)")
