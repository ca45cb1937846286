"""The stub engine as a program that takes the arguments of vLLM's server.

QCRD_STUB says how it behaves: `fine`, `silent` (never answers), `slow`, or `die-after:N` (exits
at its N-th request and each later one).
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support.stub_engine import StubEngine


def main(arguments: list[str], behaviour: str) -> None:
    """Serve until the process is ended."""
    if behaviour == "silent":
        time.sleep(60)
    kind, _, number = behaviour.partition(":")
    num_left = int(number or 0)

    def fault(_: dict[str, Any], __: int) -> None:
        nonlocal num_left
        num_left -= 1
        if kind == "die-after" and num_left <= 0:
            os._exit(1)

    port = int(arguments[arguments.index("--port") + 1])
    model = arguments[arguments.index("--served-model-name") + 1]
    delay = 0.2 if kind == "slow" else 0.0
    StubEngine(port=port, model=model, fault=fault, delay_seconds=delay).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:], os.environ["QCRD_STUB"])
