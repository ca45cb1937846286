"""Files that a user named are written whole or not at all, and never over another."""

import os

import pytest

from qcrd_core.errors import ConfigError, DataError
from qcrd_core.progress import progress
from qcrd_core.stages.prediction import predict_file
from qcrd_core.store.target import new_target


@pytest.mark.parametrize("link", [None, os.symlink, os.link], ids=["same", "symlink", "hardlink"])
def test_predict_never_writes_over_the_questions(tmp_path, link):
    questions = tmp_path / "q.jsonl"
    questions.write_text('{"question": "1 + 1?"}\n')
    target = questions
    if link is not None:
        target = tmp_path / "answers.jsonl"
        link(questions, target)

    refused = pytest.raises(ConfigError, match="--output must be a new file or folder")
    with progress("Predict", 0, "texts") as bar, refused:
        predict_file("student", questions, target, batch_size=1, bar=bar)

    assert questions.read_text() == '{"question": "1 + 1?"}\n'


def test_failed_block_leaves_nothing(tmp_path):
    def write(temporary):
        temporary.write_text("half")
        raise KeyError

    with pytest.raises(KeyError):
        _write_new(tmp_path / "new" / "a.csv", write)
    assert list((tmp_path / "new").iterdir()) == []


def test_target_made_meanwhile_is_kept(tmp_path):
    target = tmp_path / "a.csv"

    def write(temporary):
        temporary.write_text("ours")
        target.write_text("theirs")

    with pytest.raises(ConfigError):
        _write_new(target, write)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.csv": "theirs"}


@pytest.mark.parametrize("name", ["file/a.csv", "x" * 300])
def test_target_that_cannot_be_written_is_one_sentence(tmp_path, name):
    (tmp_path / "file").write_text("a file, not a folder")
    with pytest.raises((ConfigError, DataError), match=r"a\.csv|xxx"):
        _write_new(tmp_path / name, lambda temporary: temporary.write_text("text"))


def test_name_that_is_not_utf8_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"--output must be a name in UTF-8"):
        _write_new(tmp_path / "\udcff.csv", lambda _: None)


def _write_new(target, write):
    with new_target(target, "--output") as temporary:
        write(temporary)
