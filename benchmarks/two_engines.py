"""Two real vLLM servers on one machine as one pool, against one of them: what the pool gets.

    .venv/bin/python -m benchmarks.two_engines [--questions 200]

A random Llama of a few thousand weights, so that the servers' own work is small: this shows that
the pool drives real engines, not how fast a model is. Each engine has one thread.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import polars as pl
import psutil
from polars.testing import assert_frame_equal

from qcrd_core.teacher.prepare import prepare_teacher
from tests.support.sampling import Sampling, make_config, numbered_questions
from tests.support.tiny_llama import make_tiny_llama
from tests.support.two_engines import two_engines

_SERVER = {"max_model_len": 128, "extra_args": ["--enforce-eager", "--max-num-seqs=16"]}


def main() -> None:
    """Sample the same questions from one and from both, and print tokens per second."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=200)
    count = parser.parse_args().questions
    with tempfile.TemporaryDirectory(prefix="qcrd-") as name:
        folder = Path(name)
        llama = make_tiny_llama(folder / "llama")
        start = time.monotonic()
        with two_engines(_sampling(folder, llama, 1, None), folder) as endpoints:
            print(f"both ready after {time.monotonic() - start:.0f} s, {_memory():.1f} GiB")
            for endpoint in endpoints:
                os.environ[endpoint["api_key_env"]] = endpoint.pop("key")
            one = _sampling(folder / "one", llama, count, endpoints[:1])
            two = _sampling(folder / "two", llama, count, endpoints)
            tables = [_measure(each) for each in (one, two)]
        assert_frame_equal(*(table.drop("created_at") for table in tables))
        print("the tables are equal, text by text")


def _sampling(
    store: Path, llama: Path, count: int, endpoints: list[dict[str, str]] | None
) -> Sampling:
    settings = {
        "model": {"type": "folder", "path": str(llama)},
        "server": _SERVER,
        "num_samples": 5,
        "max_new_tokens": 64,
        "questions_per_shard": 16,
    }
    config = make_config(store, endpoints, **settings)
    prepared = prepare_teacher(config.teacher.model, config.run.scratch)
    return Sampling(config, numbered_questions(count), prepared=prepared)


def _measure(sampling: Sampling) -> pl.DataFrame:
    start = time.monotonic()
    table = sampling.run()
    seconds = time.monotonic() - start
    shares = ", ".join(
        f"{server.num_samples} samples at {server.num_tokens / seconds:.0f} tok/s"
        for server in sampling.servers
    )
    total = sum(server.num_tokens for server in sampling.servers)
    print(
        f"{len(sampling.servers)} servers: {total / seconds:.0f} tok/s, {seconds:.1f} s ({shares})"
    )
    return table


def _memory() -> float:
    """GiB of this process's children, pages that they share counted once for each."""
    children = psutil.Process().children(recursive=True)
    return sum(child.memory_info().rss for child in children) / 2**30


if __name__ == "__main__":
    main()
