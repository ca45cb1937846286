"""The nights that CI plays, in another process, because they replace the clock and the disk."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.__main__ import NIGHTS

_ROOT = Path(__file__).parents[2]
_PARTS = 2
"""One for each process of pytest."""


def _simulate(*arguments):
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    return subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("part", range(_PARTS))
def test_nights_keep_every_invariant(part):
    count = NIGHTS // _PARTS
    done = _simulate("--jobs=1", f"--first={part * count}", f"--nights={count}")

    assert done.returncode == 0, done.stdout + done.stderr


def test_planted_bugs_are_found():
    done = _simulate("--planted")

    assert done.returncode == 0, done.stdout + done.stderr
    seen = set(re.findall(r"night \d+, ([a-z ]+):", done.stdout))
    named = {"half visible", "champion", "lost", "doubled", "different", "endless", "unexplained"}
    assert seen == named


def test_replay_takes_the_same_steps():
    first, second = _simulate("3"), _simulate("3")

    assert first.returncode == 0, first.stdout + first.stderr
    digests = [done.stdout.splitlines()[-2] for done in (first, second)]
    assert digests[0].startswith("digest")
    assert digests[0] == digests[1]
