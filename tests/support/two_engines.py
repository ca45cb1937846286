"""Two real vLLM servers on this machine, a core and a key each."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

from qcrd_core.teacher.servers.managed import teacher_endpoints
from tests.support.sampling import Sampling


@contextmanager
def two_engines(sampling: Sampling, folder: Path) -> Iterator[list[dict[str, str]]]:
    """Run two servers of the model of a configuration without endpoints.

    Yields:
        Entries of `teacher.endpoints`, with the `key` that the variable `api_key_env` must hold.
    """
    teacher, prepared = sampling.config.teacher, sampling.prepared
    # Two engines that spin on the same cores bring each other to a stop.
    limits = {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    with ExitStack() as stack, ThreadPoolExecutor(2) as threads:
        with mock.patch.dict(os.environ, limits):
            contexts = [
                teacher_endpoints(teacher, prepared, folder / name, folder / f"{name}.log")
                for name in ("first", "second")
            ]
            pools = list(threads.map(stack.enter_context, contexts))
        entries = []
        for pool, variable in zip(pools, ("FIRST_KEY", "SECOND_KEY"), strict=True):
            (endpoint,) = pool.endpoints
            key = pool.headers(endpoint)["Authorization"].removeprefix("Bearer ")
            entries.append({"url": endpoint.url, "api_key_env": variable, "key": key})
        yield entries
