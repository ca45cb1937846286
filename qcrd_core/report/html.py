"""What our HTML pages share: their style sheet, and how values are put into them."""

from pathlib import Path

import jinja2
from markupsafe import Markup

from qcrd_core.report.svg import DRAWING_CSS
from qcrd_core.report.text import number, percent, plain_name, seconds, visible

PAGE_CSS = DRAWING_CSS + Path(__file__).with_name("page.css").read_text(encoding="utf-8")
"""Colours, tables, cards and drawings."""


def templates(folder: Path) -> jinja2.Environment:
    """Open a folder of templates.

    Every value is escaped, and characters that could hide or reorder text are made visible.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        finalize=_visible_value,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, seconds=seconds, plain=plain_name, number=number)
    return environment


def _visible_value(value: object) -> object:
    # Markup is one of our own drawings, which has already escaped its texts.
    return value if isinstance(value, Markup) else visible(str(value))
