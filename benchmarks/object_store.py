"""A run in a bucket against the same run in a folder: time, requests, faults, equal tables.

    .venv/bin/python -m benchmarks.object_store [--config FILE] [section.key=value ...]

The server is moto's, on the loopback. It fails a share of all requests (500, 503, connections reset
before or after the request is done) and is away for some seconds in the middle: what it holds is
kept, as on a server with a disk. The tables of both runs must be equal, text by text.
"""

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

from qcrd_core.config.run import load_config
from qcrd_core.run.context import RunContext
from qcrd_core.store.store import Store
from tests.support.comparison import assert_same_tables
from tests.support.distillation import qcrd
from tests.support.s3_server import S3Server, s3_server


def main() -> None:
    """Run both and print what they came to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=Path("configs/quickstart.yaml"))
    parser.add_argument("--failing", type=float, default=0.05, help="share of the requests")
    parser.add_argument("--away", type=float, default=5.0, help="seconds without the server")
    parser.add_argument("--after", type=int, default=200, help="requests before it goes away")
    parser.add_argument("--folder", type=Path, help="keep the stores here")
    parser.add_argument("overrides", nargs="*", help="settings, for example data.max_train=100")
    given = parser.parse_args()
    os.environ.update(
        AWS_ACCESS_KEY_ID="some-key",
        AWS_SECRET_ACCESS_KEY="some-secret",
        AWS_EC2_METADATA_DISABLED="true",
    )
    with tempfile.TemporaryDirectory(prefix="qcrd-") as name, s3_server() as server:
        folder = (given.folder or Path(name)).absolute()
        seconds, local = _run(given, str(folder / "store"), folder / "scratch-local")
        print(f"folder: {seconds:.0f} s", flush=True)
        server.failing, server.num_requests = given.failing, 0
        restart = threading.Thread(
            target=_restart, args=(server, given.after, given.away), daemon=True
        )
        restart.start()
        url = server.new_store()
        seconds, remote = _run(given, url, folder / "scratch-s3")
        num_requests, faults = server.num_requests, dict(server.faults)
        print(
            f"bucket: {seconds:.0f} s, {num_requests:,} requests, {json.dumps(faults)}", flush=True
        )
        restart.join()
        server.failing = 0.0
        print(f"equal: {json.dumps(assert_same_tables(remote, local))}")


def _run(given: argparse.Namespace, store: str, scratch: Path) -> tuple[float, RunContext]:
    overrides = [*given.overrides, f"run.store={store}", f"run.scratch={scratch}"]
    start = time.monotonic()
    done = qcrd("run", "--config", given.config, *overrides)
    seconds = time.monotonic() - start
    if done.returncode:
        sys.exit(f"{done.stdout}\n{done.stderr}")
    config = load_config(given.config, overrides)
    (run_id,) = Store(store, scratch).list("runs")
    return seconds, RunContext.open(config, run_id)


def _restart(server: S3Server, after: int, away: float) -> None:
    while server.num_requests < after:
        time.sleep(0.05)
    server.restart(away)


if __name__ == "__main__":
    main()
