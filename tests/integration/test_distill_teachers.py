"""`qcrd run` with two teachers, each behind its own server, killed between them and started again.

The teachers are stubs of the engine's protocol; the rest is real.
"""

import os
import signal
import time
from pathlib import Path

import pytest
from polars.testing import assert_frame_equal
from safetensors.torch import load_file

from data_schemas import Votes
from qcrd_core.run.context import RunContext
from tests.support.distillation import (
    NUM_TRAIN,
    NUM_WEAK,
    open_run,
    qcrd,
    rationales,
    settings_for_two,
    start_qcrd,
    two_teachers,
    write_settings,
)

pytestmark = pytest.mark.timeout(600)

NUM_SAMPLES = (5 + NUM_WEAK) * NUM_TRAIN
WEIGHTS = {"weights": "precision"}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch, two_teachers() as engines:
        patch.setenv("PREFECT_HOME", str(folder / "prefect"))
        content = settings_for_two(folder, *engines, voting=WEIGHTS)
        done = qcrd("run", "--config", write_settings(folder, content))
    assert done.returncode == 0, done.stderr
    return open_run(content), done


def test_run_ends_with_a_student_and_shows_both_teachers_and_both_votes(undisturbed):
    context, done = undisturbed
    report = context.store.read_bytes(context.paths.report).decode()

    assert "Traceback" not in done.stdout + done.stderr
    assert "teacher, unweighted majority" in done.stdout
    assert "stub, weak" in done.stdout
    assert "<h2>Teachers</h2>" in report
    audited = qcrd("audit", f"{context.store}/{context.paths.root}")
    assert audited.returncode == 0, audited.stderr
    assert "weighted by precision" in audited.stdout


@pytest.mark.usefixtures("prefect_server")
def test_run_killed_in_its_second_teacher_and_started_again_ends_as_the_undisturbed_one(
    undisturbed, tmp_path
):
    with two_teachers(delay_seconds=0.05) as engines:
        slow = {"concurrency": 4, "shards_in_flight": 1}
        content = settings_for_two(tmp_path, *engines, voting=WEIGHTS, teacher=slow)
        content["teacher"]["others"][0] |= slow
        path = write_settings(tmp_path, content)
        first = start_qcrd("run", "--config", path, log=tmp_path / "log")
        deadline = time.monotonic() + 240
        while len(list(Path(content["run"]["store"]).rglob("generation=*/part-*.parquet"))) < 8:
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.02)
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        asked = [engine.num_asked for engine in engines]
        assert asked[0] == 5 * NUM_TRAIN
        assert 0 < asked[1] < NUM_WEAK * NUM_TRAIN
        again = qcrd("run", "--config", path)

        assert again.returncode == 0, again.stderr
        assert engines[0].num_asked == asked[0]
    context = open_run(content)
    assert context.paths.run_id == undisturbed[0].paths.run_id
    assert rationales(context).height == NUM_SAMPLES
    assert_frame_equal(rationales(context), rationales(undisturbed[0]))
    assert_frame_equal(
        *(each.store.read_table(each.paths.votes, Votes) for each in (context, undisturbed[0]))
    )
    ours, theirs = _student(context), _student(undisturbed[0])
    assert ours.keys() == theirs.keys()
    assert all((ours[name] == weights).all() for name, weights in theirs.items())


def _student(context: RunContext):
    folder = context.store.local(context.paths.best_student)
    return load_file(folder / "model.safetensors")
