"""How long each stage took, for the report."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from qcrd_core.context import RunContext


@contextmanager
def timed(context: RunContext, stage: str, round_: int = -1) -> Iterator[None]:
    """Note the seconds of a block that ends well, as metric `<stage>_seconds` of stage timing.

    After a crash they are of the last start alone.
    """
    start = time.monotonic()
    yield
    seconds = {f"{stage}_seconds": time.monotonic() - start}
    context.write_metrics("timing", round_, seconds, part=f"timing-{stage}")
