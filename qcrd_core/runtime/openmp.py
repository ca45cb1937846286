"""How the threads of OpenMP, with which torch computes on a CPU, wait for each other."""

import os
from collections.abc import Mapping

_PASSIVE = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "2000"}


def passive_openmp() -> Mapping[str, str]:
    """Give the variables that let OpenMP's threads sleep while they wait.

    By default they spin for milliseconds, which takes the cores from every other process: two
    training runs on two cores then take four times as long as one. The GNU library still spins 2000
    times, because sleeping at once makes a step a fifth slower. OpenMP reads the variables once,
    when torch is loaded.

    Returns:
        Names and values; none if the environment says already how threads wait.
    """
    return {} if os.environ.keys() & _PASSIVE.keys() else _PASSIVE
