"""Bar charts as SVG. Each bar links to the rows it counts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from qcrd_core.report.svg import Scale, caption, drawing, rule, ticks

_HEIGHT, _TOP, _BOTTOM = 190, 24, 34
_LEFT, _RIGHT = 46, 510
_UNIT = {tenth / 5: f"{tenth / 5:.1f}" for tenth in range(6)}
_MOST_MARKS = 12


@dataclass(frozen=True)
class Bar:
    """One bar over [low, high] of the horizontal axis."""

    low: float
    high: float
    value: float
    title: str
    """Text shown under the pointer."""
    label: str = ""
    """Text above the bar."""
    href: str = ""
    tone: int = 0


def bar_chart(
    bars: Sequence[Bar],
    x_label: str,
    y_label: str,
    *,
    domain: tuple[float, float] = (0.0, 1.0),
    marks: Mapping[float, str] = _UNIT,
) -> Markup | None:
    """Draw bars.

    Args:
        bars: The bars.
        x_label: Name of the horizontal axis.
        y_label: Name of the vertical axis.
        domain: Ends of the horizontal axis.
        marks: What is written below it, by place. If there are too many, some are left out.

    Returns:
        An `<svg>`; None without bars.
    """
    if not bars:
        return None
    levels = ticks(0, max(bar.value for bar in bars), whole=True, count=3)
    x_at = Scale(domain, _LEFT, _RIGHT)
    y_at = Scale((0.0, levels[-1]), _HEIGHT - _BOTTOM, _TOP)
    parts = []
    for mark in levels:
        parts.append(rule(_LEFT, y_at(mark), _RIGHT, y_at(mark), "grid"))
        parts.append(_right(_LEFT - 6, y_at(mark) + 4, f"{mark:,.0f}"))
    shown = list(marks.items())[:: 1 + len(marks) // _MOST_MARKS]
    parts += [caption(x_at(place), _HEIGHT - 18, text) for place, text in shown]
    parts += [_bar(bar, x_at, y_at) for bar in bars]
    parts.append(caption((_LEFT + _RIGHT) / 2, _HEIGHT - 3, x_label))
    parts.append(Markup('<text x="0" y="12" class="tick">{}</text>').format(y_label))
    return drawing(f"{y_label} by {x_label}", _HEIGHT, parts)


def _bar(bar: Bar, x_at: Scale, y_at: Scale) -> Markup:
    x, width = x_at(bar.low) + 0.5, x_at(bar.high) - x_at(bar.low) - 1
    top = y_at(bar.value)
    drawn = Markup(
        '<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" class="bar tone-{}">'
        "<title>{}</title></rect>"
    ).format(x, top, width, max(y_at(0) - top, 1), bar.tone, bar.title)
    if bar.label:
        drawn += caption(x + width / 2, top - 4, bar.label)
    link = Markup('<a href="{}" aria-label="{}">{}</a>')
    return link.format(bar.href, bar.title, drawn) if bar.href else drawn


def _right(x: float, y: float, text: str) -> Markup:
    return Markup('<text x="{}" y="{:.1f}" class="tick" text-anchor="end">{}</text>').format(
        x, y, text
    )
