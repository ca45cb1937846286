"""Every file of a store, and of its user, damaged in every way, before every command that reads it.

Either the command succeeds, or it says in a sentence what is wrong. It never harms another file,
and it never succeeds without a file that it relies on. Here a part of the cases runs, with each
command and each damage; `tests/integration/test_all_damage.py` runs all.
"""

import pytest

from tests.support.damage import make_site
from tests.support.damage_commands import cases, fault

SLOW = {"validate": 24, "promote": 12}
"""Of these commands only one case in so many runs here, of others one in six."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return make_site(tmp_path_factory.mktemp("site"))


def test_no_damage_ends_in_a_traceback_harm_or_silence(site):
    by_command = {}
    for case in cases(site):
        by_command.setdefault(case[3], []).append(case)
    assert sum(map(len, by_command.values())) >= 1500
    chosen = [case for name, found in by_command.items() for case in found[:: SLOW.get(name, 6)]]
    assert [(case[3], *case[:2], found) for case in chosen if (found := fault(site, case))] == []
