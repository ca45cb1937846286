"""A lock between processes, where its file cannot be made; `run.locks` tests the rest."""

import pytest

from qcrd_core.errors import StoreError
from qcrd_core.runtime.lock import lock


def test_lock_whose_file_cannot_be_made_says_so(tmp_path):
    (tmp_path / "file").write_text("in the way")

    with (
        pytest.raises(StoreError, match=r"file/lock could not be written: (Not a dir|File exi)"),
        lock(tmp_path / "file" / "lock"),
    ):
        pass
