"""Markdown tables that no text from outside can break."""

from collections.abc import Iterable, Sequence

from qcrd_core.report.text import visible


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a table.

    Args:
        head: The headings.
        rows: Rows with as many cells as there are headings. Texts from outside must have gone
            through `cell`.

    Returns:
        The lines of the table, without a final newline.
    """
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def cell(text: str) -> str:
    """Escape a text from outside, so that it can neither break a table nor start a tag."""
    return visible(" ".join(text.split())).replace("|", "\\|").replace("<", "&lt;")
