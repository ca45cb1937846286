"""dataframely without SQLAlchemy, which it would import for a feature that nothing here uses.

With its database dialects SQLAlchemy takes as long to import as all else that a table needs, in
every command and every job. dataframely works without it; whoever imports it later gets it.
"""

import sys

_IS_HIDDEN = "sqlalchemy" not in sys.modules
if _IS_HIDDEN:
    sys.modules["sqlalchemy"] = None  # type: ignore[assignment]  # an import of it fails
try:
    import dataframely as dy
finally:
    if _IS_HIDDEN:
        del sys.modules["sqlalchemy"]

__all__ = ["dy"]
