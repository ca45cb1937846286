"""All cases of `tests/properties/test_every_damage.py`: minutes."""

import pytest

from tests.support.damage import make_site
from tests.support.damage_commands import cases, fault


@pytest.mark.timeout(1200)
def test_no_damage_at_all_ends_in_a_traceback_harm_or_silence(tmp_path):
    site = make_site(tmp_path)
    found = [(case[3], *case[:2], wrong) for case in cases(site) if (wrong := fault(site, case))]
    assert found == []
