"""How torch's threads wait in a job and in the rank it starts: asleep, unless the user says not."""

import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.training import open_tiny, prepare, round_job, settings

# Its own process, whose fork server is new: OpenMP reads its environment when torch is loaded.
_SCRIPT = """
import json, pickle, sys
from pathlib import Path
from qcrd_core.runtime.processes import run_job
from tests.support.jobs import train_and_say_how_it_waits

if __name__ == "__main__":
    folder, events = Path(sys.argv[1]), []
    job = pickle.loads((folder / "job").read_bytes())
    done = run_job(
        train_and_say_how_it_waits, job, log=folder / "log", on_event=events.append
    )
    print(json.dumps([done.value, *{event["rank"] for event in events}]))
"""
_SPIN_COUNT = re.compile(r"GOMP_SPINCOUNT = '(\d+)'")


@pytest.mark.parametrize(
    ("set_by_user", "policy", "spins"),
    [({}, "passive", 2000), ({"OMP_WAIT_POLICY": "active"}, "active", 30_000_000_000)],
    ids=["default", "active"],
)
def test_job_and_rank_wait_passively_unless_told_otherwise(tmp_path, set_by_user, policy, spins):
    context = open_tiny(settings(tmp_path))
    prepare(context)
    (tmp_path / "job").write_bytes(pickle.dumps(round_job(context, 0)))
    environment = {**os.environ, "PYTHONPATH": ".", "OMP_DISPLAY_ENV": "verbose"}
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        environment.pop(name, None)

    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, tmp_path],
        cwd=Path(__file__).parents[2],
        env={**environment, **set_by_user},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [policy, policy]
    # The fork server has loaded torch once for all.
    assert {int(count) for count in _SPIN_COUNT.findall(done.stderr)} == {spins}
