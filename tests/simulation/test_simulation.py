"""The nights that CI plays, in a process of their own: it replaces the clock and the disk."""

import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]


def _simulate(*arguments):
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    return subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)


def test_nights_keep_every_invariant():
    done = _simulate()

    assert done.returncode == 0, done.stdout + done.stderr


def test_planted_bugs_are_found():
    done = _simulate("--planted")

    assert done.returncode == 0, done.stdout + done.stderr
    seen = {line.rpartition(", ")[2].partition(":")[0] for line in done.stdout.splitlines()}
    assert seen >= {"half visible", "champion", "lost", "doubled", "different", "endless"}


@pytest.mark.parametrize("seed", ["3", "4"])  # one of sampling, one of promotion
def test_replay_takes_the_same_steps(seed):
    first, second = _simulate(seed), _simulate(seed)

    assert first.returncode == 0, first.stdout + first.stderr
    assert first.stdout.splitlines()[-2:] == second.stdout.splitlines()[-2:]
    assert "digest" in first.stdout.splitlines()[-2]
