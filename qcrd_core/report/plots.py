"""Charts as inline SVG, drawn from numbers.

Colours come from CSS variables (`--tone-0` ...), so the same drawing fits the light and the dark
page. Every text is escaped.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from qcrd_core.report.svg import (
    WIDTH,
    Scale,
    bar,
    caption,
    drawing,
    number,
    path,
    rule,
    share_text,
    ticks,
)
from qcrd_core.report.text import shorten

_HEIGHT = 250.0
_LEFT, _TOP, _BOTTOM = 48, 28, 40
_RIGHT_LABELLED, _RIGHT_BARE = 116.0, 18.0
_LONGEST_LABEL, _LABEL_CHARACTER = 24, 7.2
_LABEL_GAP = 15.0
_MARKER_POINTS = 16
_WHOLE = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Line:
    """One curve."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    tone: int = 0
    band: Sequence[tuple[float, float]] = field(default=())
    """Lower and upper end of a band at each x; empty draws no band."""
    is_dashed: bool = False


@dataclass(frozen=True)
class Axis:
    """An axis. Ends that are None follow the data; on the vertical axis they end at a tick."""

    label: str
    low: float | None = None
    high: float | None = None
    is_share: bool = False
    """Whether ticks are percentages."""
    marks: Sequence[float] = field(default=())
    """Positions of the ticks; empty puts them at round numbers."""


def line_chart(
    lines: Sequence[Line],
    x_axis: Axis,
    y_axis: Axis,
    *,
    references: Sequence[float] = (),
    height: float = _HEIGHT,
) -> Markup:
    """Draw curves with their names at their right ends.

    Args:
        lines: At least one curve with at least one point.
        x_axis: Horizontal axis, which shows whole numbers.
        y_axis: Vertical axis.
        references: Values at which dashed horizontal lines are drawn.
        height: Height of the whole chart; each line's name needs 15.

    Returns:
        An `<svg>` element.
    """
    right = _RIGHT_BARE
    if len(lines) > 1:
        longest = max(len(shorten(line.name, _LONGEST_LABEL)) for line in lines)
        right = max(_RIGHT_LABELLED, 14 + _LABEL_CHARACTER * longest)
    x_span = _ends(x_axis, [v for line in lines for v in line.x])
    x_ticks = x_axis.marks or ticks(*x_span, whole=True)
    values = [v for line in lines for v in line.y] + [v for ln in lines for p in ln.band for v in p]
    y_ticks = y_axis.marks or ticks(*_ends(y_axis, [*values, *references]))
    x_at = Scale(x_span, _LEFT + 6, WIDTH - right)
    y_at = Scale(_span(y_axis, y_ticks), height - _BOTTOM, _TOP)
    parts = [_grid(x_axis, y_axis, x_ticks, y_ticks, x_at, y_at, (WIDTH - right, height))]
    parts += [rule(_LEFT, y_at(y), WIDTH - right, y_at(y), "reference") for y in references]
    parts += [_curve(line, x_at, y_at) for line in lines]
    if len(lines) > 1:
        parts.append(_end_labels(lines, y_at, (WIDTH - right, height)))
    return drawing(f"{y_axis.label} against {x_axis.label}", height, parts)


@dataclass(frozen=True)
class Group:
    """One row of a chart of histograms."""

    name: str
    note: str
    values: Sequence[float]
    tone: int


def histogram_rows(groups: Sequence[Group], x_label: str, num_bins: int = 20) -> Markup:
    """Draw one small histogram per group over [0, 1], all with the same vertical scale.

    Args:
        groups: Groups of at least one value in [0, 1].
        x_label: Name of the values.
        num_bins: Number of bins of equal width.

    Returns:
        An `<svg>` element.
    """
    shares = [_shares(group.values, num_bins) for group in groups]
    highest = max(max(row) for row in shares)
    row_height, plot_height, top = 72, 46, 6
    x_at = Scale((0.0, 1.0), 12, WIDTH - 12)
    parts = []
    for index, (group, row) in enumerate(zip(groups, shares, strict=True)):
        base = top + index * row_height + row_height - 6
        parts.append(
            Markup(
                '<text x="12" y="{}" class="label tone-{}">{}</text>'
                '<text x="{}" y="{}" class="tick" text-anchor="end">{}</text>'
            ).format(base - 53, group.tone, group.name, WIDTH - 12, base - 53, group.note)
        )
        for bin_, share in enumerate(row):
            tall = plot_height * share / highest
            left, right = x_at(bin_ / num_bins) + 0.5, x_at((bin_ + 1) / num_bins) - 0.5
            title = f"{bin_ / num_bins:.2f} to {(bin_ + 1) / num_bins:.2f}: {share:.1%}"
            parts.append(bar(left, base - tall, right - left, tall, group.tone, title))
        parts.append(rule(12, base, WIDTH - 12, base, "axis"))
    bottom = top + len(groups) * row_height - 6
    parts += [
        Markup('<text x="{}" y="{}" class="tick" text-anchor="{}">{:g}</text>').format(
            number(x_at(tick)), bottom + 15, anchor, tick
        )
        for tick, anchor in (
            (0.0, "start"),
            (0.25, "middle"),
            (0.5, "middle"),
            (0.75, "middle"),
            (1.0, "end"),
        )
    ]
    parts.append(caption(WIDTH / 2, bottom + 32, x_label))
    return drawing(f"Histograms of {x_label}", bottom + 38, parts)


@dataclass(frozen=True)
class Whisker:
    """A share with its interval, one row of `share_rows`."""

    name: str
    note: str
    share: float
    interval: tuple[float, float] | None
    """Lower and upper end of the interval; None draws no interval."""
    singles: Sequence[float] = field(default=())
    """The single measurements whose mean is the share."""


def share_rows(
    rows: Sequence[Whisker], x_label: str, by: str, *, marks: Sequence[float] = _WHOLE
) -> Markup:
    """Draw shares as dots with their intervals, one row each.

    Args:
        rows: At least one row.
        x_label: The measured quantity, with its unit.
        by: What each row stands for.
        marks: Ticks of the axis in ascending order. The axis ends at the first and the last.

    Returns:
        An `<svg>` element.
    """
    left, right, row_height, top = 150, 96, 22, 8
    x_at = Scale((marks[0], marks[-1]), left, WIDTH - right)
    bottom = top + len(rows) * row_height + 4
    parts = []
    for tick in marks:
        x = x_at(tick)
        is_zero = tick == 0 and marks[0] < 0  # what differences are read against
        parts.append(rule(x, top, x, bottom, "axis" if is_zero else "grid"))
        parts.append(caption(x, bottom + 15, share_text(tick)))
    for index, row in enumerate(rows):
        y = top + index * row_height + row_height / 2
        parts.append(
            Markup(
                '<g><title>{}</title><text x="{}" y="{}" class="label" text-anchor="end">{}</text>'
                '{}<circle cx="{}" cy="{}" r="4.5" class="dot tone-0"/>'
                '<text x="{}" y="{}" class="tick">{}</text></g>'
            ).format(
                _title(row), left - 10, y + 4, shorten(row.name, 22),
                _spread(row, x_at, y), number(x_at(row.share)), y,
                WIDTH - right + 14, y + 4, row.note,
            )
        )  # fmt: skip
    parts.append(caption((left + WIDTH - right) / 2, bottom + 32, x_label))
    return drawing(f"{x_label} by {by}", bottom + 38, parts)


def _title(row: Whisker) -> str:
    interval = f" ({row.interval[0]:.1%} to {row.interval[1]:.1%})" if row.interval else ""
    return f"{row.name}: {row.share:.1%}{interval}"


def _spread(row: Whisker, x_at: Scale, y: float) -> Markup:
    parts = [
        Markup('<circle cx="{}" cy="{}" r="2" class="single"/>').format(number(x_at(value)), y)
        for value in row.singles
    ]
    if row.interval:
        parts.insert(0, rule(x_at(row.interval[0]), y, x_at(row.interval[1]), y, "whisker"))
    return Markup("").join(parts)


def _ends(axis: Axis, values: Sequence[float]) -> tuple[float, float]:
    low = min(values) if axis.low is None else axis.low
    high = max(values) if axis.high is None else axis.high
    return low, high if high > low else low + 1


def _span(axis: Axis, marks: Sequence[float]) -> tuple[float, float]:
    # A fixed end stays; a free end moves to the outermost tick.
    low = marks[0] if axis.low is None else axis.low
    return low, marks[-1] if axis.high is None else axis.high


def _grid(
    x_axis: Axis,
    y_axis: Axis,
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    x_at: Scale,
    y_at: Scale,
    size: tuple[float, float],
) -> Markup:
    """Ticks, lines and labels of a plot that ends at size[0], in a chart as tall as size[1]."""
    end, height = size
    bottom = height - _BOTTOM
    parts = []
    for tick in y_ticks:
        y = y_at(tick)
        if _TOP - 1 <= y <= bottom + 1:
            parts.append(rule(_LEFT, y, end, y, "grid" if y < bottom - 1 else "axis"))
            text = share_text(tick) if y_axis.is_share else f"{tick:g}"
            parts.append(
                Markup('<text x="{}" y="{}" class="tick" text-anchor="end">{}</text>').format(
                    _LEFT - 7, number(y + 4), text
                )
            )
    for tick in x_ticks:
        x = x_at(tick)
        if _LEFT - 1 <= x <= end + 1:
            parts.append(
                Markup('<text x="{}" y="{}" class="tick" text-anchor="middle">{}</text>').format(
                    number(x), bottom + 16, share_text(tick) if x_axis.is_share else f"{tick:,g}"
                )
            )
    parts.append(caption((_LEFT + end) / 2, height - 6, x_axis.label))
    parts.append(Markup('<text x="4" y="14" class="tick">{}</text>').format(y_axis.label))
    return Markup("").join(parts)


def _curve(line: Line, x_at: Scale, y_at: Scale) -> Markup:
    points = [(x_at(x), y_at(y)) for x, y in zip(line.x, line.y, strict=True)]
    parts = []
    if line.band:
        upper = [(x_at(x), y_at(p[1])) for x, p in zip(line.x, line.band, strict=True)]
        lower = [(x_at(x), y_at(p[0])) for x, p in zip(line.x, line.band, strict=True)]
        parts.append(
            Markup('<polygon points="{}" class="band tone-{}"/>').format(
                path(upper + lower[::-1]), line.tone
            )
        )
    parts.append(
        Markup('<polyline points="{}" class="curve tone-{}{}"/>').format(
            path(points), line.tone, " dashed" if line.is_dashed else ""
        )
    )
    if len(points) <= _MARKER_POINTS:
        parts += [
            Markup(
                '<circle cx="{}" cy="{}" r="3.5" class="dot tone-{}"><title>{}</title></circle>'
            ).format(
                number(x), number(y), line.tone, f"{line.name} at {line.x[i]:g}: {line.y[i]:.4g}"
            )
            for i, (x, y) in enumerate(points)
        ]
    return Markup("").join(parts)


def _end_labels(lines: Sequence[Line], y_at: Scale, size: tuple[float, float]) -> Markup:
    wanted = sorted((y_at(line.y[-1]) + 4, line.name, line.tone) for line in lines)
    placed: list[float] = []
    for y, _, _ in wanted:
        placed.append(max(y, placed[-1] + _LABEL_GAP) if placed else y)
    overflow = max(0.0, placed[-1] - (size[1] - _BOTTOM + 4))
    return Markup("").join(
        Markup('<text x="{}" y="{}" class="label tone-{}">{}</text>').format(
            number(size[0] + 8), number(y - overflow), tone, shorten(name, _LONGEST_LABEL)
        )
        for y, (_, name, tone) in zip(placed, wanted, strict=True)
    )


def _shares(values: Sequence[float], num_bins: int) -> list[float]:
    counts = [0] * num_bins
    for value in values:
        counts[min(int(value * num_bins), num_bins - 1)] += 1
    return [count / len(values) for count in counts]
