"""How long each stage took and how much memory, for the report and the bench."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from qcrd_core.run.context import RunContext


@contextmanager
def timed(context: RunContext, stage: str, round_: int = -1) -> Iterator[dict[str, float]]:
    """Note the seconds of a block that ends well, as metric `<stage>_seconds` of stage timing.

    What the block puts into the yielded mapping is noted likewise, as `<stage>_<name>`.

    After a crash they are of the last start alone.
    """
    start = time.monotonic()
    more: dict[str, float] = {}
    yield more
    numbers = {"seconds": time.monotonic() - start, **more}
    named = {f"{stage}_{name}": value for name, value in numbers.items()}
    context.write_metrics("timing", round_, named, part=f"timing-{stage}")
