"""Keys of artifacts in the Prefect UI."""

import pytest

from tasks.artifacts import key_of


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("svamp", "vote-svamp"),
        ("SVAMP_t5-Base", "vote-svamp-t5-base"),
        ("a__b-", "vote-a-b"),
    ],
)
def test_key_has_the_models_name_in_letters_that_prefect_allows(name, key):
    assert key_of("vote", name) == key
