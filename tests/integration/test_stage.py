"""A task tries again where the store is away, in a process of its own."""

import pytest

from tests.support.distillation import run_script

_RUN = """
from prefect import flow
from qcrd_core.errors import ConfigError, StoreAwayError
from tasks import stage

stage._PAUSES_SECONDS = (0.1, 0.2, 0.3)
calls = []


@stage.stage("Read")
def read(errors):
    calls.append(len(calls))
    if errors:
        raise errors.pop(0)
    return "read"


@flow
def ask(errors):
    return read(errors)


def say(*errors):
    calls.clear()
    state = ask(list(errors), return_state=True)
    print(state.type.value, len(calls))


say(StoreAwayError("away"), StoreAwayError("away"))
say(ConfigError("wrong"))
say(*[StoreAwayError("away")] * 9)
"""


@pytest.mark.usefixtures("prefect_server")
def test_stage_tries_again_where_the_store_is_away_and_not_on_a_mistake(tmp_path):
    done = run_script(_RUN, tmp_path)

    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == ["COMPLETED 3", "FAILED 1", "FAILED 4"]
