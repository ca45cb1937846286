"""Checkpoints that are refused; tests/integration/test_training.py shows that they are exact."""

from pathlib import Path

import pytest
from torch import nn

from qcrd_core.errors import TrainingError
from qcrd_core.training.checkpoint import Checkpoint


@pytest.mark.parametrize("names", [[], ["bias"], ["bias", "weight", "more"]], ids=len)
def test_checkpoint_of_other_parameters_is_refused(names):
    files = {f"weight/{name}": Path("run/00000.safetensors") for name in names}
    checkpoint = Checkpoint(Path("run/engine/step=4"), {"global_step": 4}, files)
    with pytest.raises(
        TrainingError,
        match=r"run/engine/step=4 does not fit the student: they differ in (bias|weight|more)",
    ):
        checkpoint.load_weights(nn.Linear(1, 1))
