"""The real engine: a managed vLLM server on a random Llama of a few thousand weights."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import httpx
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from qcrd_core.errors import LaunchError, SamplingError
from qcrd_core.teacher.prepare import prepare_teacher
from qcrd_core.teacher.servers.managed import teacher_endpoints
from tests.support.processes import all_gone
from tests.support.sampling import Sampling, make_config, numbered_questions
from tests.support.tiny_llama import make_tiny_llama
from tests.support.two_engines import two_engines

_SERVER = {"max_model_len": 128, "extra_args": ["--enforce-eager", "--max-num-seqs=16"]}
_CONTENT = ("question_id", "sample_idx", "seed", "text", "num_tokens", "finish_reason")


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return make_tiny_llama(tmp_path_factory.mktemp("llama"))


def _sampling(store: Path, llama: Path, count: int, *, endpoints=None, **teacher) -> Sampling:
    settings = {
        "model": {"type": "folder", "path": str(llama)},
        "server": _SERVER,
        "num_samples": 3,
        "max_new_tokens": 24,
        **teacher,
    }
    config = make_config(store, endpoints, **settings)
    prepared = prepare_teacher(config.teacher.model, config.run.scratch)
    return Sampling(config, numbered_questions(count), prepared=prepared)


def _group(scratch: Path) -> int:
    (note,) = scratch.glob("teacher-server-*.json")
    return json.loads(note.read_text())["group"]


def _processes(group: int) -> dict[int, bytes]:
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(entry.name)) == group:
                found[int(entry.name)] = (entry / "cmdline").read_bytes()
        except OSError:
            continue
    return {pid: line for pid, line in found.items() if line}


def _kill_engine_midway(sampling: Sampling, scratch: Path, groups: list[int]) -> None:
    """Kill vLLM's engine process as soon as the first part is stored."""
    deadline = time.monotonic() + 60
    folder = sampling.store.local(sampling.plan().folder)
    while not list(folder.glob("part-*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.005)
    groups.append(_group(scratch))
    for pid, line in _processes(groups[0]).items():
        if b"EngineCore" in line:
            os.kill(pid, signal.SIGKILL)


@pytest.mark.timeout(900)
def test_killed_engine_is_started_again_and_the_table_is_the_same(tmp_path, llama):
    whole = _sampling(tmp_path / "whole", llama, 8, questions_per_shard=5, concurrency=16)
    whole.questions = whole.questions.sort("question_id", descending=True)
    killed = _sampling(tmp_path / "killed", llama, 8, questions_per_shard=1, concurrency=2)
    scratch = tmp_path / "scratch"
    log = scratch / "vllm.log"
    with teacher_endpoints(killed.config.teacher, killed.prepared, scratch, log) as pool:
        # The key is known to the server and to its run alone.
        assert httpx.get(f"{pool.urls[0]}/models", trust_env=False).status_code == 401
        undisturbed = whole.run_on(pool)
        groups: list[int] = []
        killer = threading.Thread(target=_kill_engine_midway, args=(killed, scratch, groups))
        killer.start()
        table = killed.run_on(pool)
        killer.join()
        groups.append(_group(scratch))
    assert log.read_text(errors="replace").count("Application startup complete") == 2
    assert all_gone([pid for group in groups for pid in _processes(group)])
    assert (table["cumulative_logprob"] < 0).all()
    assert undisturbed["text"].n_unique() == 24
    # Another order, other shards, more in flight and no death: the same, text by text.
    assert_frame_equal(undisturbed.select(_CONTENT), table.select(_CONTENT))


@pytest.mark.timeout(600)
def test_two_servers_with_keys_of_their_own_are_one_pool(tmp_path, llama, monkeypatch):
    with two_engines(_sampling(tmp_path, llama, 1), tmp_path) as endpoints:
        for endpoint in endpoints:
            monkeypatch.setenv(endpoint["api_key_env"], endpoint.pop("key"))
        one = _sampling(tmp_path / "one", llama, 16, endpoints=endpoints[:1])
        two = _sampling(tmp_path / "two", llama, 16, endpoints=endpoints, questions_per_shard=2)
        alone, together = one.run(), two.run()
        # Another model by the same servers: told before anything is asked.
        other = make_config(tmp_path, endpoints, model={"type": "hub", "name": "other"})
        with pytest.raises(SamplingError, match="must serve 'stub'; got"):
            Sampling(other, numbered_questions(1)).run()
    assert alone["text"].n_unique() == 48
    assert_frame_equal(together.select(_CONTENT), alone.select(_CONTENT))
    assert min(server.num_samples for server in two.servers) > 0
    assert sum(server.num_samples for server in two.servers) == 48


def test_server_that_cannot_start_is_explained_by_its_log(tmp_path, llama):
    server = {**_SERVER, "extra_args": ["--no-such-argument"]}
    sampling = _sampling(tmp_path, llama, 1, server=server)
    with pytest.raises(LaunchError, match=r"exited before it was ready(?s:.)*--no-such-argument"):
        sampling.run()
    assert not list((tmp_path / "scratch").glob("teacher-server-*"))
    assert pl.Series(list((tmp_path / "datasets").rglob("part-*"))).is_empty()
