"""Every file of a store, and of its user, damaged in every way, before every command that reads it.

Either the command succeeds, or it says in a sentence what is wrong. It never harms another file,
and it never succeeds without a file that it relies on.
"""

import pytest

from tests.support.damage import make_site
from tests.support.damage_commands import cases, fault

PARTS = 12
"""So that all processes of pytest take some."""


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    return make_site(tmp_path_factory.mktemp("site"))


@pytest.mark.parametrize("part", range(PARTS))
def test_no_damage_ends_in_a_traceback_harm_or_silence(site, part):
    found = list(cases(site))
    assert len(found) >= 1500
    chosen = found[part::PARTS]
    assert [(case[3], *case[:2], wrong) for case in chosen if (wrong := fault(site, case))] == []
