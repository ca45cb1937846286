"""LoRA and QLoRA: adapters in a student, and their way back into its weights.

peft puts the adapters in place; the model stays of its own class, so that training need not know of
them. Importing peft takes seconds: only runs with `student.lora` do.

QLoRA follows its authors' settings (arXiv 2305.14314: NF4, double quantization, bfloat16). Nobody
has trained with it here yet, for want of a GPU.
"""

from importlib.util import find_spec
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from peft.utils.integrations import dequantize_module_weight
from torch import Tensor, nn
from transformers import BitsAndBytesConfig

from qcrd_core.config.models import LoraSection
from qcrd_core.errors import ConfigError
from qcrd_core.ids import derive_seed

_NAME = "default"
"""peft's name of the one adapter."""
_BASE = ".base_layer."
"""Where peft keeps the layer that an adapter stands beside."""


def add_adapters(model: Any, lora: LoraSection, seed: int) -> None:
    """Give a model adapters, which alone learn from then on.

    Args:
        model: Hugging Face model; changed.
        lora: Settings.
        seed: Run seed; adapters are the same for the same seed.
    """
    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules="all-linear"
    )
    torch.manual_seed(derive_seed(seed, "student adapters"))
    inject_adapter_in_model(config, model, _NAME)


def merge_adapters(weights: dict[str, Tensor], model: Any) -> dict[str, Tensor]:
    """Add each adapter to its layer: W + (alpha / r) B A.

    Args:
        weights: State of a model with adapters, whole, even where the model's own is sharded.
        model: That model.

    Returns:
        State of the model as it was before `add_adapters`, float32 where it was adapted.
    """
    adapted = _adapted(model)
    merged = {
        name.replace(_BASE, "."): tensor
        for name, tensor in weights.items()
        if not any(name.startswith(f"{layer}.") for layer in adapted)
        or name.endswith((f"{_BASE}weight", f"{_BASE}bias"))
    }
    for name, layer in adapted.items():
        base = weights[f"{name}{_BASE}weight"]
        if base.dtype == torch.uint8:  # packed by bitsandbytes
            base = dequantize_module_weight(layer.get_base_layer())
        first = weights[f"{name}.lora_A.{_NAME}.weight"].float()
        second = weights[f"{name}.lora_B.{_NAME}.weight"].float()
        change = layer.scaling[_NAME] * (second @ first)
        merged[f"{name}.weight"] = base.float() + change.to(base.device)
    return merged


def quantization(lora: LoraSection) -> dict[str, Any]:
    """How the weights below the adapters are held.

    Args:
        lora: Settings.

    Returns:
        Options of `from_pretrained`; none without `lora.quantize`.

    Raises:
        ConfigError: If this machine lacks CUDA or bitsandbytes, and they are needed.
    """
    if lora.quantize is None:
        return {}
    if not torch.cuda.is_available() or find_spec("bitsandbytes") is None:
        absent = "bitsandbytes" if torch.cuda.is_available() else "a CUDA device"
        msg = (
            f"student.lora.quantize={lora.quantize} must run on CUDA with bitsandbytes installed; "
            f"{absent} is absent. Set it to null, or install the extra qlora on such a machine."
        )
        raise ConfigError(msg)
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=lora.quantize,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {"quantization_config": config, "device_map": {"": torch.cuda.current_device()}}


def _adapted(model: nn.Module) -> dict[str, Any]:
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
