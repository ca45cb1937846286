"""Building blocks of a drawing: scales, ticks, lines and bars as escaped SVG."""

import base64
import math
import re
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

WIDTH = 520
"""Width of every drawing in its own units; the page shows one unit as about one pixel."""
NUM_TONES = 8
"""Number of colours in `DRAWING_CSS`; 0 and 1 also stand for positive and negative."""
DRAWING_CSS = (Path(__file__).parent / "drawing.css").read_text(encoding="utf-8")
"""Style sheet of all drawings, for light and dark pages."""

_FILE_WIDTH = 640
_EDGE = 12


class Scale:
    """Places a value between two ends of a drawing."""

    def __init__(self, span: tuple[float, float], start: float, end: float) -> None:
        """Map the span's low end to `start` and its high end to `end`."""
        self._low, self._start = span[0], start
        self._factor = (end - start) / (span[1] - span[0])

    def __call__(self, value: float) -> float:
        """The position of a value."""
        return self._start + (value - self._low) * self._factor


def ticks(low: float, high: float, *, whole: bool = False, count: int = 5) -> list[float]:
    """Round numbers that cover [low, high] and a little more.

    Args:
        low: Lower end.
        high: Upper end, at least `low`.
        whole: Use whole numbers only.
        count: Approximate number of steps.

    Returns:
        At least two equally spaced numbers.
    """
    raw = max((high - low) / count, 1e-9)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    if whole:
        step = max(1.0, math.ceil(step))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 10) for index in range(first, max(last, first + 1) + 1)]


def bar(x: float, y: float, width: float, height: float, tone: int, title: str) -> Markup:
    """A filled rectangle that shows `title` under the pointer."""
    return Markup(
        '<rect x="{}" y="{}" width="{}" height="{}" class="bar tone-{}"><title>{}</title></rect>'
    ).format(number(x), number(y), number(width), number(height), tone, title)


def rule(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    """A straight line; `kind` is its CSS class."""
    return Markup('<line x1="{}" y1="{}" x2="{}" y2="{}" class="{}"/>').format(
        number(x1), number(y1), number(x2), number(y2), kind
    )


def caption(x: float, y: float, text: str) -> Markup:
    """Small text, centred at x."""
    return Markup('<text x="{}" y="{}" class="tick" text-anchor="middle">{}</text>').format(
        number(x), number(y), text
    )


def path(points: Sequence[tuple[float, float]]) -> str:
    """The `points` attribute of a polyline or polygon."""
    return " ".join(f"{number(x)},{number(y)}" for x, y in points)


def number(value: float) -> str:
    """A coordinate, to a tenth of a unit."""
    return f"{value:.1f}"


def share_text(share: float) -> str:
    """A tick in percent, with decimals only if it needs them."""
    return f"{round(share * 100, 6):g}%"


def drawing(label: str, height: float, parts: Sequence[Markup]) -> Markup:
    """Wrap elements into one `<svg>` that screen readers announce as `label`."""
    content = Markup("").join(parts)
    role = "group" if "<a " in content else "img"  # nothing in an image can be focused
    return Markup('<svg viewBox="0 0 {} {}" role="{}" aria-label="{}">{}</svg>').format(
        WIDTH, number(height), role, label, content
    )


def standalone(svg: Markup) -> str:
    """Turn a drawing into a file with its own colours, an opaque background and an edge.

    An image cannot use the style sheet of the page that shows it, and that page may be dark.
    """
    parts = re.fullmatch(r'<svg viewBox="0 0 \d+ ([\d.]+)"( [^>]*)>(.*)</svg>', svg, re.DOTALL)
    assert parts is not None  # `drawing` makes exactly this form
    width, height = WIDTH + 2 * _EDGE, float(parts[1]) + 2 * _EDGE
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{-_EDGE} {-_EDGE} {width} '
        f'{number(height)}" width="{_FILE_WIDTH}" height="{_FILE_WIDTH * height / width:.0f}"'
        f"{parts[2]}>\n<style>\n{DRAWING_CSS}</style>\n"
        f'<rect x="{-_EDGE}" y="{-_EDGE}" width="100%" height="100%" fill="var(--card)"/>\n'
        f"{parts[3]}\n</svg>\n"
    )


def in_markdown(svg: Markup, name: str) -> str:
    """Embed a drawing in Markdown, for a UI that cannot open files of the store.

    An artifact of type image would show its whole data URL below the image.
    """
    content = base64.b64encode(standalone(svg).encode()).decode()
    return f"![{name}](data:image/svg+xml;base64,{content})"
