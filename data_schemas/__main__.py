"""`python -m data_schemas`: write docs/schemas.md and store the layouts of new versions."""

import sys
from pathlib import Path

from data_schemas import TABLES
from data_schemas.reference import LayoutChangedError, render_reference, store_layout

_ROOT = Path(__file__).parents[1]


def main() -> None:
    """Write the page and the new layouts; see the module's docstring."""
    try:
        written = [store_layout(table, _ROOT / "tests" / "schemas") for table in TABLES]
    except LayoutChangedError as error:
        sys.exit(str(error))
    page = _ROOT / "docs" / "schemas.md"
    page.write_text(render_reference(TABLES), encoding="utf-8")
    names = [str(path.relative_to(_ROOT)) for path in [page, *filter(None, written)]]
    sys.stdout.write("\n".join(names) + "\n")


if __name__ == "__main__":
    main()
