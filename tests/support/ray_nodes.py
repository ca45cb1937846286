"""A Ray cluster on the loopback: a head without work, and nodes of one task each."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from qcrd_core.teacher.servers.launch import free_port

_ROOT = Path(__file__).parents[2]
_START = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", "--block"]
_STORE_BYTES = 80_000_000
_HOST = "127.0.0.2"  # a loopback address that Ray does not replace by the machine's own


class RayNodes:
    """A cluster; `address` is what a driver connects to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = folder / "ray.log"
        self.nodes: list[subprocess.Popen[bytes]] = []
        """Those that work and were not killed."""
        port = free_port()
        self.address = f"{_HOST}:{port}"
        head = ["--head", "--port", str(port), "--include-dashboard=false", "--num-cpus=0"]
        # Sockets lie below it, and their names have to be short.
        self._processes = [self._start(*head, "--temp-dir", str(folder))]
        self._wait("Ray runtime started", 1)

    def add(self) -> None:
        """Start a node that does one task at a time."""
        node = self._start("--address", self.address, "--num-cpus=1")
        self._processes.append(node)
        self.nodes.append(node)
        self._wait("Ray runtime started", len(self._processes))

    def kill(self, node: subprocess.Popen[bytes]) -> None:
        """Kill a node and all it runs, as a power cut does."""
        with contextlib.suppress(psutil.NoSuchProcess):
            # Its workers lead groups of their own.
            processes = [*psutil.Process(node.pid).children(recursive=True), node]
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        node.wait()
        if node in self.nodes:
            self.nodes.remove(node)

    def end(self) -> None:
        """Kill all."""
        for node in reversed(self._processes):
            self.kill(node)

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        paths = [str(_ROOT), os.environ.get("PYTHONPATH")]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_raylet_start_wait_time_s": "120",  # for a busy machine
        }
        command = [*_START, *arguments, f"--node-ip-address={_HOST}"]
        command += [f"--object-store-memory={_STORE_BYTES}", "--disable-usage-stats"]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, start_new_session=True
            )

    def _wait(self, text: str, count: int) -> None:
        deadline = time.monotonic() + 120
        while self._log.read_text(errors="replace").count(text) < count:
            assert time.monotonic() < deadline, self._log.read_text(errors="replace")
            assert self._processes[-1].poll() is None, self._log.read_text(errors="replace")
            time.sleep(0.1)


@contextmanager
def ray_nodes(num_nodes: int) -> Iterator[RayNodes]:
    """Run a cluster for as long as the block runs."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    nodes = RayNodes(folder)
    try:
        for _ in range(num_nodes):
            nodes.add()
        yield nodes
    finally:
        nodes.end()
        shutil.rmtree(folder, ignore_errors=True)
