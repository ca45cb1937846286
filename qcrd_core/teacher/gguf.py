"""Turn a GGUF file and a LoRA adapter into a plain Hugging Face model folder.

Runs in a child process (`qcrd_core.teacher.prepare` starts `write_folder` as a job), because it
needs torch. The merge is the definition of LoRA, W + (alpha / r) B A (arXiv 2106.09685, section
4.1), so peft is needed only to train an adapter, not to use one.

Limits: plain LoRA on linear layers. Variants that change the formula are rejected by name.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qcrd_core.errors import ConfigError
from qcrd_core.runtime.processes import Emit

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

_PREFIX = "base_model.model."
_SUFFIX_A, _SUFFIX_B = ".lora_A.weight", ".lora_B.weight"
# Values under which W + (alpha / r) B A is the complete formula. If a key is absent, peft's default
# applies, which is among them.
_PLAIN_LORA: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "use_dora": (False,),
    "use_rslora": (False,),
    "fan_in_fan_out": (False,),
    "modules_to_save": (None, []),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
}


@dataclass(frozen=True)
class WriteFolder:
    """A GGUF file that becomes a model folder."""

    gguf: Path
    """The file."""
    adapter: Path | None
    """Folder of a peft adapter to merge."""
    target: Path
    """Folder to fill."""


def write_folder(job: WriteFolder, emit: Emit) -> dict[str, int]:
    """Job: dequantize, merge, write a model folder.

    Args:
        job: The file, its adapter and the folder.
        emit: Unused; the work takes seconds.

    Returns:
        `num_parameters` and `num_merged`, the weights an adapter changed.

    Raises:
        ConfigError: If the adapter is not a plain LoRA adapter of this model.
    """
    del emit
    from transformers import GenerationConfig

    model, tokenizer = load(job.gguf)
    num_merged = 0 if job.adapter is None else merge(model, job.adapter)
    # Only ids: a server would use sampling settings found here as its defaults.
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(job.target)
    tokenizer.save_pretrained(job.target)
    logger.info("Merged %d adapted weights into %s", num_merged, job.gguf)
    return {"num_parameters": model.num_parameters(), "num_merged": num_merged}


def load(gguf: Path) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """Load a GGUF file as a dense float32 model with its tokenizer.

    Args:
        gguf: The file.

    Returns:
        Model in evaluation mode, tokenizer.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
    )
    return model, AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)


def merge(model: "PreTrainedModel", adapter: Path) -> int:
    """Add a LoRA adapter to a model's weights, in place: W + (alpha / r) B A.

    Args:
        model: The model the adapter was trained on, float32.
        adapter: Folder with `adapter_config.json` and `adapter_model.safetensors`.

    Returns:
        The number of changed weights.

    Raises:
        ConfigError: If the adapter is not plain LoRA, holds anything other than pairs of A and B,
            or its names or shapes do not fit the model.
    """
    from safetensors.torch import load_file

    scale = _scale(adapter / ADAPTER_CONFIG)
    tensors = load_file(adapter / ADAPTER_WEIGHTS)
    names = [name.removesuffix(_SUFFIX_A) for name in tensors if name.endswith(_SUFFIX_A)]
    expected = {name + suffix for name in names for suffix in (_SUFFIX_A, _SUFFIX_B)}
    if not names or expected != set(tensors):
        odd = sorted(expected ^ set(tensors))[:3] or ["nothing"]
        msg = (
            f"A LoRA adapter must hold pairs of lora_A and lora_B; got {', '.join(odd)} "
            f"({adapter / ADAPTER_WEIGHTS}). Train the adapter again."
        )
        raise ConfigError(msg)
    weights = dict(model.named_parameters())
    for name in names:
        delta = tensors[name + _SUFFIX_B].float() @ tensors[name + _SUFFIX_A].float()  # [out, in]
        _add(weights, name.removeprefix(_PREFIX) + ".weight", delta * scale)
    return len(names)


def _scale(path: Path) -> float:
    config = json.loads(path.read_text(encoding="utf-8"))
    for key, allowed in _PLAIN_LORA.items():
        if key in config and config[key] not in allowed:
            msg = (
                f"{key} of a LoRA adapter must be {allowed[0]!r}; got {config[key]!r} ({path}). "
                "Merge this adapter yourself and set teacher.model to the merged folder."
            )
            raise ConfigError(msg)
    missing = [key for key in ("lora_alpha", "r") if key not in config]
    if missing:
        msg = (
            f"A LoRA adapter must state lora_alpha and r; got no {missing[0]} ({path}). Train the "
            "adapter again."
        )
        raise ConfigError(msg)
    return float(config["lora_alpha"]) / float(config["r"])


def _add(weights: dict[str, "Tensor"], name: str, delta: "Tensor") -> None:
    if name not in weights or weights[name].shape != delta.shape:
        found = f"shape {tuple(weights[name].shape)}" if name in weights else "no such weight"
        msg = (
            f"A LoRA adapter must fit its model; got {name} of shape {tuple(delta.shape)}, but the "
            f"model has {found}. Use the model that the adapter was trained on."
        )
        raise ConfigError(msg)
    weights[name].data += delta
