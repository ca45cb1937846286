"""`run.ray_address` on a real cluster: a head and two nodes on the loopback."""

import contextlib
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from safetensors.torch import load_file

from data_schemas import Rationales
from qcrd_core.config.run import validate_config
from qcrd_core.stages.plan import begin_run, plan_run
from qcrd_core.stages.sampling import sample_teacher
from qcrd_core.teacher.servers.launch import free_port
from tests.support.distillation import (
    NUM_TRAIN,
    open_run,
    qcrd,
    rationales,
    run_flow,
    settings_for,
    taught_teacher,
    write_settings,
)
from tests.support.ray_nodes import ray_nodes

pytestmark = pytest.mark.timeout(600)

NUM_QUESTIONS, PER_SHARD, NUM_SERVERS = 120, 2, 3
NUM_SAMPLES = 5 * NUM_QUESTIONS


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one sampler gets from one server."""
    with taught_teacher() as engine:
        plan = plan_run(validate_config(_settings(tmp_path_factory.mktemp("one"), [engine]), "t"))
        begin_run(plan)
        sample_teacher(plan.context)
    return rationales(plan.context)


@pytest.fixture(scope="module")
def cluster(prefect_server):
    """A head and two nodes, which know the Prefect server."""
    assert os.environ["PREFECT_API_URL"] == prefect_server
    with ray_nodes(2) as nodes:
        yield nodes


def test_samplers_on_two_nodes_give_the_table_of_one(alone, cluster, tmp_path):
    with _held_engines() as (engines, start), ThreadPoolExecutor(1) as thread:
        content = _settings(tmp_path, engines, cluster)
        run = thread.submit(run_flow, "sample_teacher", write_settings(tmp_path, content))
        _wait(lambda: len(_notes(tmp_path)) == 2 * NUM_SERVERS or run.done(), start)
        start.set()
        assert run.result().returncode == 0, run.result().stderr
        num_asked = sum(engine.num_asked for engine in engines)

    _check_table(alone, content, tmp_path)
    assert num_asked - NUM_SAMPLES <= 2 * NUM_SERVERS * PER_SHARD * 5
    assert not _notes(tmp_path)


def test_node_killed_in_the_middle_loses_and_doubles_nothing(alone, cluster, tmp_path):
    with _held_engines(delay_seconds=0.2) as (engines, start), ThreadPoolExecutor(1) as thread:
        content = _settings(tmp_path, engines, cluster)
        run = thread.submit(run_flow, "sample_teacher", write_settings(tmp_path, content))
        _wait(lambda: len(_notes(tmp_path)) == 2 * NUM_SERVERS or run.done(), start)
        start.set()
        _wait(lambda: len(_parts(tmp_path)) >= 6 or run.done(), start)
        num_before = len(_parts(tmp_path))
        cluster.kill(cluster.nodes[-1])
        assert run.result().returncode == 0, run.result().stderr
        num_asked = sum(engine.num_asked for engine in engines)
    cluster.add()

    assert num_before < NUM_QUESTIONS // PER_SHARD
    _check_table(alone, content, tmp_path)
    # What the dead one had in hand is asked again, and at the end what both had.
    assert num_asked - NUM_SAMPLES <= 2 * 2 * NUM_SERVERS * PER_SHARD * 5
    assert not _notes(tmp_path)


def test_negatives_beside_training_are_those_of_a_run_without_ray(
    cluster, prefect_server, tmp_path
):
    found = []
    for name, nodes in (("local", None), ("ray", cluster)):
        with taught_teacher() as engine:
            more = {"negatives": {"lag": 2}, "run": _on(nodes) if nodes else {}}
            content = settings_for(tmp_path / name, engine)
            content = {**content, **{key: {**content[key], **more[key]} for key in more}}
            done = qcrd("run", "--config", write_settings(tmp_path / name, content))
        assert done.returncode == 0, done.stderr
        context = open_run(content)
        negatives = context.store.read_table(context.paths.negatives(2), Rationales)
        student = context.store.local(context.paths.best_student)
        found.append((negatives.drop("created_at"), load_file(student / "model.safetensors")))
    (local, weights), (beside, other) = found

    assert local.height == NUM_TRAIN
    assert_frame_equal(local, beside)
    assert all((weights[name] == other[name]).all() for name in weights)
    # One after the other they would begin when round 1 is validated.
    spans = _spans(prefect_server)
    assert spans["Sample negatives of round 2"][0] < spans["Validate round 1"][1]


@pytest.mark.usefixtures("prefect_server")
def test_cluster_that_is_not_there_is_one_sentence(tmp_path):
    with taught_teacher() as engine:
        content = _settings(tmp_path, [engine])
        content["run"] |= {"ray_address": f"127.0.0.1:{free_port()}"}
        done = run_flow("sample_teacher", write_settings(tmp_path, content))
        assert engine.num_asked == 0

    assert done.returncode != 0
    assert "run.ray_address must be the address of a running Ray cluster; got" in done.stderr


@contextlib.contextmanager
def _held_engines(**settings):
    """Servers that answer nobody before `start` is set."""
    start = threading.Event()
    with contextlib.ExitStack() as stack:
        engines = [
            stack.enter_context(taught_teacher(fault=lambda *_: _let(start), **settings))
            for _ in range(NUM_SERVERS)
        ]
        yield engines, start


def _let(start):
    start.wait()


def _on(cluster):
    return {"ray_address": cluster.address, "num_samplers": 2}


def _settings(folder, engines, cluster=None):
    teacher = {
        "endpoints": [engine.url for engine in engines],
        "questions_per_shard": PER_SHARD,
        "shards_in_flight": 1,
        "concurrency": 4,
    }
    content = settings_for(folder, engines[0], data={"max_train": NUM_QUESTIONS}, teacher=teacher)
    if cluster is not None:
        content["run"] |= _on(cluster)
    return content


def _check_table(alone, content, folder):
    assert_frame_equal(rationales(open_run(content)), alone)
    stored = pl.concat([pl.read_parquet(path) for path in _parts(folder)])
    assert not stored.select("question_id", "sample_idx").is_duplicated().any()


def _notes(folder):
    return list(folder.rglob("generation=*/_tmp-taken-*"))


def _parts(folder):
    return list(folder.rglob("generation=*/part-*.parquet"))


def _spans(url):
    """Begin and end of each task of the newest run, by its name."""
    with httpx.Client(base_url=url, trust_env=False) as api:
        newest = {"sort": "START_TIME_DESC", "limit": 1}
        (flow_run,) = api.post("/flow_runs/filter", json=newest).json()
        wanted = {"flow_runs": {"id": {"any_": [flow_run["id"]]}}}
        found = api.post("/task_runs/filter", json=wanted).json()
    return {run["name"]: (run["start_time"], run["end_time"]) for run in found}


def _wait(condition, start):
    """Wait; in vain, let the servers answer, or the run would never end."""
    deadline = time.monotonic() + 300
    while not condition():
        if time.monotonic() > deadline:
            start.set()
            pytest.fail("waited in vain")
        time.sleep(0.05)
