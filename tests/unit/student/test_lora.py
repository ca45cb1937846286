"""Adapters: what learns, and that merged weights are the same function."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

from qcrd_core.config.models import FolderModel, LoraSection
from qcrd_core.errors import ConfigError
from qcrd_core.student.lora import merge_adapters
from qcrd_core.student.weights import load_model, make_student

IDS = torch.tensor([[5, 6, 7, 8]])


@pytest.fixture(params=["t5", "llama"])
def folder(request, tmp_path):
    torch.manual_seed(0)
    if request.param == "t5":
        config = T5Config(
            vocab_size=50, d_model=16, d_ff=32, num_layers=1, num_heads=2, d_kv=8, dropout_rate=0.0
        )
        model = T5ForConditionalGeneration(config)
    else:
        config = LlamaConfig(
            vocab_size=50,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
        )
        model = LlamaForCausalLM(config)
    model.save_pretrained(tmp_path)
    return tmp_path


def _logits(model):
    more = {"decoder_input_ids": IDS} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model.eval()(input_ids=IDS, **more).logits


def _adapted(folder, **settings):
    """A student whose adapters have learnt something: as made, they change nothing."""
    student = make_student(FolderModel(path=folder), None, 0, LoraSection(rank=2, **settings))
    torch.manual_seed(1)
    for name, parameter in student.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_()
    return student


def test_merged_weights_are_the_same_function_in_a_plain_model(folder):
    student, plain = _adapted(folder), load_model(folder)
    assert not torch.allclose(_logits(student), _logits(plain), atol=1e-2)
    merged = merge_adapters(student.state_dict(), student)
    assert merged.keys() == plain.state_dict().keys()
    plain.load_state_dict(merged)
    torch.testing.assert_close(_logits(student), _logits(plain), atol=1e-5, rtol=1e-4)


def test_adapters_alone_learn_and_follow_the_seed(folder):
    weights = FolderModel(path=folder)
    students = [make_student(weights, None, seed, LoraSection(rank=2)) for seed in (0, 0, 1)]
    learning = [
        {name: p for name, p in student.named_parameters() if p.requires_grad}
        for student in students
    ]
    assert learning[0]
    assert all(".lora_A." in name or ".lora_B." in name for name in learning[0])
    assert all(torch.equal(p, learning[1][name]) for name, p in learning[0].items())
    assert any(not torch.equal(p, learning[2][name]) for name, p in learning[0].items())
    torch.testing.assert_close(_logits(students[0]), _logits(load_model(folder)))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_quantized_weights_without_cuda_are_refused(folder):
    with pytest.raises(ConfigError, match="needs a CUDA device and bitsandbytes; a CUDA"):
        _adapted(folder, quantize="nf4")
