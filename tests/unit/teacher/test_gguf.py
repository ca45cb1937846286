"""Merging a LoRA adapter is W + (alpha / r) B A, and anything else is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from qcrd_core.errors import ConfigError
from qcrd_core.teacher.gguf import ADAPTER_CONFIG, ADAPTER_WEIGHTS, merge

_QUERY = "model.layers.0.self_attn.q_proj"
_DOWN = "model.layers.0.mlp.down_proj"


def _tiny_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=32,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
        )
    )


def _pair(module: str, num_out: int, num_in: int) -> dict[str, torch.Tensor]:
    prefix = f"base_model.model.{module}"
    return {
        f"{prefix}.lora_A.weight": torch.randn(2, num_in).half(),
        f"{prefix}.lora_B.weight": torch.randn(num_out, 2).half(),
    }


def _write_adapter(folder: Path, tensors: dict[str, torch.Tensor], **config: Any) -> Path:
    save_file(tensors, folder / ADAPTER_WEIGHTS)
    content = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, **config}
    (folder / ADAPTER_CONFIG).write_text(json.dumps(content))
    return folder


def test_merge_adds_scaled_product_to_the_named_weights_only(tmp_path: Path) -> None:
    model = _tiny_model()
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    tensors = {**_pair(_QUERY, 16, 16), **_pair(_DOWN, 16, 24)}
    num_merged = merge(model, _write_adapter(tmp_path, tensors))
    assert num_merged == 2
    for name, weight in model.named_parameters():
        module = "base_model.model." + name.removesuffix(".weight")
        expected = before[name]
        if f"{module}.lora_A.weight" in tensors:
            a = tensors[f"{module}.lora_A.weight"].double()
            b = tensors[f"{module}.lora_B.weight"].double()
            # r = 2 and alpha = 6: the scale is 3.
            expected = (expected.double() + 3 * torch.einsum("or,ri->oi", b, a)).float()
        torch.testing.assert_close(weight, expected, rtol=1e-5, atol=1e-5)


def test_merge_with_foreign_shape_is_refused_with_both_shapes(tmp_path: Path) -> None:
    adapter = _write_adapter(tmp_path, _pair(_QUERY, 16, 8))
    with pytest.raises(ConfigError, match=r"q_proj.weight of shape \(16, 8\).*\(16, 16\)"):
        merge(_tiny_model(), adapter)


def test_merge_with_unknown_layer_is_refused(tmp_path: Path) -> None:
    adapter = _write_adapter(tmp_path, _pair("model.layers.7.mlp.down_proj", 16, 24))
    with pytest.raises(ConfigError, match=r"layers.7.*no such weight"):
        merge(_tiny_model(), adapter)


def test_merge_with_a_lone_half_of_a_pair_is_refused(tmp_path: Path) -> None:
    tensors = _pair(_QUERY, 16, 16)
    tensors.pop(f"base_model.model.{_QUERY}.lora_B.weight")
    with pytest.raises(ConfigError, match="must hold pairs of lora_A and lora_B"):
        merge(_tiny_model(), _write_adapter(tmp_path, tensors))


@pytest.mark.parametrize(
    ("key", "value"),
    [("use_dora", True), ("use_rslora", True), ("peft_type", "LOHA"), ("bias", "all")],
)
def test_merge_with_another_formula_is_refused_by_its_setting(
    tmp_path: Path, key: str, value: Any
) -> None:
    adapter = _write_adapter(tmp_path, _pair(_QUERY, 16, 16), **{key: value})
    with pytest.raises(ConfigError, match=f"{key} of a LoRA adapter must be"):
        merge(_tiny_model(), adapter)


def test_merge_without_rank_is_refused(tmp_path: Path) -> None:
    adapter = _write_adapter(tmp_path, _pair(_QUERY, 16, 16))
    (adapter / ADAPTER_CONFIG).write_text(json.dumps({"lora_alpha": 6}))
    with pytest.raises(ConfigError, match="got no r "):
        merge(_tiny_model(), adapter)
