"""What `qcrd predict` refuses before it loads anything."""

import shutil

import pytest

from qcrd_core.errors import ConfigError, StoreError
from qcrd_core.progress import progress
from qcrd_core.stages.prediction import fetch_student, predict_file
from qcrd_core.store.store import Store


@pytest.fixture
def student(tmp_path):
    store = Store(str(tmp_path / "store"), tmp_path / "scratch")
    source = store.local("_tmp-student")
    source.mkdir(parents=True)
    (source / "weights").write_text("1", encoding="utf-8")
    store.publish_folder(source, "student")
    return store.local("student")


@pytest.mark.parametrize("batch_size", [0, -1, 10**9])
def test_batch_size_out_of_range_is_refused(tmp_path, student, batch_size):
    target = tmp_path / "answers.jsonl"
    with (
        progress("Answer", total=0, unit="questions") as bar,
        pytest.raises(ConfigError, match=r"--batch-size must be between 1 and 65,536; got "),
    ):
        predict_file(str(student), tmp_path / "q.jsonl", target, batch_size=batch_size, bar=bar)
    assert not target.exists()


def test_student_that_differs_from_its_hashes_is_refused(tmp_path, student):
    assert fetch_student(str(student), tmp_path) == student
    (student / "weights").write_text("2", encoding="utf-8")
    with pytest.raises(StoreError, match=r"student/weights was changed: its hash differs"):
        fetch_student(str(student), tmp_path)
    (student / "weights").unlink()
    with pytest.raises(StoreError, match=r"student/weights is missing, although DONE lists it"):
        fetch_student(str(student), tmp_path)


@pytest.mark.parametrize("done", ["{}", "[]", '{"../../weights": "%s"}', '{"/etc/passwd": "%s"}'])
def test_student_whose_hashes_are_damaged_is_refused(tmp_path, student, done):
    (student / "DONE").write_text(done.replace("%s", "0" * 64), encoding="utf-8")
    with pytest.raises(StoreError, match=r"student/DONE must be as qcrd wrote it"):
        fetch_student(str(student), tmp_path)


def test_copy_of_a_student_needs_no_hashes(tmp_path, student):
    copy = shutil.copytree(student, tmp_path / "copy", ignore=shutil.ignore_patterns("DONE"))
    assert fetch_student(str(copy), tmp_path) == copy
