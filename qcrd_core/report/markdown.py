"""Tables of Markdown, whose foreign texts cannot break them."""

from collections.abc import Iterable, Sequence

from qcrd_core.report.text import visible


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table.

    Args:
        head: Its headings.
        rows: As many cells each; a foreign text went through `cell`.

    Returns:
        Lines, without one at the end.
    """
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def cell(text: str) -> str:
    """A foreign text that can neither break a table nor start a tag."""
    return visible(" ".join(text.split())).replace("|", "\\|").replace("<", "&lt;")
