"""What a training says when a rank fails."""

import json
import time
from pathlib import Path

import pytest
import torch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from qcrd_core.config.method import TrainingSection
from qcrd_core.errors import TrainingError
from qcrd_core.training.train import _explained
from tests.support.jobs import GPU_IS_FULL


def _failure(folder, said):
    file = folder / "error.json"
    message = {"message": said, "extraInfo": {"timestamp": str(int(time.time()))}}
    file.write_text(json.dumps({"message": message}), encoding="utf-8")
    return ChildFailedError("rank", {0: ProcessFailure(0, 1, 1, str(file))})


def test_explained_says_in_a_sentence_that_the_gpu_is_full(tmp_path):
    error = _explained(_failure(tmp_path, f"OutOfMemoryError: {GPU_IS_FULL}"), TrainingSection())
    assert isinstance(error, TrainingError)
    assert str(error).startswith("Training ran out of GPU memory: Tried to")
    assert len(str(error).splitlines()) == 1


def test_explained_gives_our_own_error_as_it_is(tmp_path):
    error = _explained(_failure(tmp_path, "TrainingError: The loss."), TrainingSection())
    assert isinstance(error, TrainingError)
    assert str(error) == "The loss."


def test_explained_leaves_a_foreign_error_to_the_log(tmp_path):
    failure = _failure(tmp_path, "KeyError: 'absent'")
    assert _explained(failure, TrainingSection()) is failure


@pytest.mark.parametrize(
    "write",
    [
        lambda: torch.save({"weight": torch.zeros(100_000)}, "/dev/full"),
        lambda: Path("/dev/full").write_text("{}", encoding="utf-8"),
        lambda: _raise("SafetensorError", "I/O error: No space left on device (os error 28)"),
    ],
    ids=["torch", "text", "safetensors"],
)
def test_explained_says_in_a_sentence_that_the_disk_is_full(tmp_path, write):
    with pytest.raises(Exception, match=r".") as failed:
        write()
    said = f"{failed.type.__name__}: {failed.value}"
    error = _explained(_failure(tmp_path, said), TrainingSection())
    assert isinstance(error, TrainingError)
    assert str(error).startswith("Training could not write a file, because the disk is full: ")
    assert len(str(error).splitlines()) == 1


def _raise(name, text):
    raise type(name, (Exception,), {})(text)
