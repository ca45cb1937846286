"""Types of options that several commands take; a value out of bounds ends with one sentence."""

from typing import Annotated
from urllib.parse import urlsplit

from cyclopts import Parameter
from cyclopts.validators import Number


def _check_web_address(_type: object, value: str | None) -> None:
    if value is None:
        return
    try:
        parts = urlsplit(value)
        is_address = parts.scheme in {"http", "https"} and bool(parts.hostname)
        _ = parts.port  # raises if it is no port
    except ValueError:
        is_address = False
    if not is_address:
        msg = "Must be an address such as https://chat.example.com/hooks/1."
        raise ValueError(msg)


Port = Annotated[int, Parameter(validator=Number(gte=1, lte=65_535))]
"""A TCP port."""
BatchSize = Annotated[int, Parameter(validator=Number(gte=1, lte=65_536))]
"""Questions answered at once."""
NumWaiting = Annotated[int, Parameter(validator=Number(gte=1, lte=1_000_000))]
"""Questions that wait."""
NumRows = Annotated[int, Parameter(validator=Number(gte=1, lte=1_000_000))]
"""A number of rows to print."""
WebAddress = Annotated[str | None, Parameter(validator=_check_web_address)]
"""An address that is called."""
