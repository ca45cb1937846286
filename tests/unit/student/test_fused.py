"""Fused modules compute what Hugging Face's own compute."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.activations import NewGELUActivation
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm

from qcrd_core.student.fused import fuse
from tests.support.tiny_models import MAKE

IDS = torch.tensor([[5, 9, 3, 1], [7, 2, 1, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])


@pytest.fixture(params=MAKE)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    model = MAKE[request.param]()
    for name, weight in model.named_parameters():
        if "norm" in name:  # all ones would hide a weight that is not applied
            nn.init.uniform_(weight, 0.5, 1.5)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_same_loss_and_gradients(model: PreTrainedModel, dtype: torch.dtype) -> None:
    slow, fast = model.to(dtype), deepcopy(model).to(dtype)
    fuse(fast)
    losses = [m(input_ids=IDS, attention_mask=MASK, labels=IDS).loss for m in (slow, fast)]
    for loss in losses:
        loss.backward()
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 0.05}[dtype]
    torch.testing.assert_close(losses[0], losses[1], rtol=tolerance, atol=0)
    of_slow, of_fast = (dict(m.named_parameters()) for m in (slow, fast))
    assert of_slow.keys() == of_fast.keys()
    for name, weight in of_slow.items():
        assert weight.grad is not None
        scale = weight.grad.abs().max().item()
        torch.testing.assert_close(
            of_fast[name].grad, weight.grad, rtol=tolerance, atol=tolerance * scale
        )


def test_nothing_slow_is_left(model: PreTrainedModel) -> None:
    names = set(model.state_dict())
    fuse(model)
    assert not any(
        isinstance(m, LlamaRMSNorm | T5LayerNorm | NewGELUActivation) for m in model.modules()
    )
    assert set(model.state_dict()) == names
