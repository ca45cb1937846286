"""Errors name where a setting stands: in the file, or on the command line."""

import pytest

from qcrd_core.config.run import load_config
from qcrd_core.errors import ConfigError

FILE = """\
run: {name: mine, store: here}
data: {dataset: word_problems}
teacher: {model: some/teacher, num_samples: 0}
student: {model: some/student}
"""


def test_wrong_override_is_not_blamed_on_the_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(FILE)

    with pytest.raises(ConfigError) as caught:
        load_config(path, ("training.num_rounds=-1", "run.seed=1"))

    teacher, training = str(caught.value).splitlines()
    assert teacher.endswith(f"got 0 ({path}).")
    assert training.endswith("got -1 (command line).")


def test_misspelt_override_is_not_blamed_on_the_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(FILE)

    with pytest.raises(ConfigError, match=r"^training\.num_round is not a setting \(command line"):
        load_config(path, ("training.num_round=3",))
