"""Plays nights: see the package's page.

python -m tests.simulation                            the nights that CI plays
python -m tests.simulation --nights 50000 --first 1   more, or others, on all cores
python -m tests.simulation 4711                       one night again, step by step
python -m tests.simulation --planted                  which night sees which planted bug
"""

import argparse
import gc
import itertools
import os
import subprocess
import sys
import time
from collections import Counter

NIGHTS = 1200
"""As many as take half a minute on two cores."""


def main() -> int:
    """Play what the command line asks for; returns 1 if an invariant is broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("seed", nargs="?", type=int)
    parser.add_argument("--nights", type=int, default=NIGHTS)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--planted", action="store_true")
    asked = parser.parse_args()
    if asked.seed is None and not asked.planted and asked.jobs > 1:
        return _share(asked.first, asked.nights, asked.jobs)
    from tests.simulation.night import install

    install()
    if asked.planted:
        return _find_planted()
    return _play(asked.first, asked.nights) if asked.seed is None else _replay(asked.seed)


def _share(first: int, count: int, jobs: int) -> int:
    """Play the nights in as many processes; returns 1 if one of them breaks an invariant."""
    ends = [first + count * job // jobs for job in range(jobs + 1)]
    ranges = [(start, end - start) for start, end in itertools.pairwise(ends) if end > start]
    command = [sys.executable, "-m", "tests.simulation", "--jobs=1"]
    processes = [
        subprocess.Popen([*command, f"--first={start}", f"--nights={number}"])
        for start, number in ranges
    ]
    return max(process.wait() for process in processes)


def _play(first: int, count: int) -> int:
    from tests.simulation.checks import BrokenError
    from tests.simulation.nights import kind_of, play

    start, kinds = time.process_time(), Counter()
    kills = errors = 0
    gc.disable()  # what one night leaves is small
    for seed in range(first, first + count):
        try:
            night = play(seed)
        except BrokenError as error:
            print(f"Night {seed} ({kind_of(seed).name}) breaks an invariant: {error}")
            print(f"Replay it: python -m tests.simulation {seed}")
            return 1
        kinds[kind_of(seed).name] += 1
        kills, errors = kills + night.num_kills, errors + len(night.errors)
        if seed % 500 == 0:
            gc.collect()
    digests = {play(first + count - 1).digest for _ in range(2)} | {night.digest}
    seconds = time.process_time() - start
    shown = ", ".join(f"{number:,} {kind}" for kind, number in sorted(kinds.items()))
    print(f"{count:,} nights in {seconds:.1f} s: {shown}; {kills:,} kills, {errors:,} errors")
    if len(digests) > 1:
        print("The last night differs from its replay.")
    return int(len(digests) > 1)


def _replay(seed: int) -> int:
    from tests.simulation import nights
    from tests.simulation.checks import BrokenError

    try:
        night, broken = nights.play(seed), None
    except BrokenError as error:
        night, broken = nights.LAST, error
    for when, process, what in night.world.trace:
        print(f"{when:12.3f} s  {process:<4} {what}")
    print(*night.errors, f"digest {night.digest}", broken or "All invariants hold.", sep="\n")
    return int(broken is not None)


def _find_planted() -> int:
    from tests.simulation.planted import BUGS, find

    missed = 0
    for bug in BUGS:
        found = find(bug)
        missed += found is None
        print(f"{bug.name}: " + ("NOT FOUND" if found is None else f"night {found[0]}, {found[1]}"))
    return int(missed > 0)


if __name__ == "__main__":
    wanted = {"PYTHONHASHSEED": "0", "POLARS_MAX_THREADS": "1"}
    if not wanted.items() <= os.environ.items():
        # The order of sets of texts must not differ between a night and its replay.
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.simulation", *sys.argv[1:]],
            {**os.environ, **wanted},
        )
    sys.exit(main())
