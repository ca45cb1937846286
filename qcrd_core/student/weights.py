"""Makes or loads a student's weights: from the hub, from a folder, or from scratch."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from qcrd_core.config.models import (
    NUM_HEADS,
    FolderModel,
    HubModel,
    LoraSection,
    ScratchEncoder,
    ScratchWeights,
)
from qcrd_core.errors import ConfigError
from qcrd_core.ids import derive_seed
from qcrd_core.student.tokenizer import first_line, refuse_silent_hub


def make_student(
    weights: HubModel | FolderModel | ScratchWeights,
    tokenizer: Any,
    seed: int,
    lora: LoraSection | None = None,
) -> Any:
    """Make the untrained student of a run.

    Args:
        weights: Source of its weights.
        tokenizer: Tokenizer that determines the vocabulary of a model from scratch.
        seed: Run seed; equal seeds give equal new weights and adapters.
        lora: Adapters, which are then the only trained weights; None trains all weights.

    Returns:
        A Hugging Face model in float32, quantized if `lora` requires it.

    Raises:
        ConfigError: If the model cannot be loaded, lacks weights that would then be random, or
            cannot get these adapters.
    """
    if isinstance(weights, ScratchWeights):
        torch.manual_seed(derive_seed(seed, "student weights"))
        return _from_scratch(weights, tokenizer)
    source, revision = (
        (weights.path, None)
        if isinstance(weights, FolderModel)
        else (weights.name, weights.revision)
    )
    if lora is None:
        return load_model(source, revision)
    from qcrd_core.student.lora import add_adapters, quantization  # takes seconds to import

    model = load_model(source, revision, **quantization(lora))
    add_adapters(model, lora, seed)
    return model


def load_model(source: str | Path, revision: str | None = None, **options: Any) -> Any:
    """Load a T5-type or causal model from safetensors.

    Args:
        source: Hub name or local folder.
        revision: Commit or tag of a hub repository.
        options: Further options of `from_pretrained`.

    Returns:
        The model, in float32 unless the options quantize it.

    Raises:
        ConfigError: If there is no such model, or its weights are missing, damaged, or differ in
            size from its config.json.
    """
    try:
        config = AutoConfig.from_pretrained(source, revision=revision)
        kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model, info = kind.from_pretrained(
            source,
            revision=revision,
            dtype=torch.float32,
            use_safetensors=True,
            # Rejected below, with their names.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **options,
        )
    except Exception as error:
        refuse_silent_hub(source, error)
        msg = (
            f"A student must be a model folder or a hub name; got {source} ({first_line(error)}). "
            "Correct student.model."
        )
        raise ConfigError(msg) from error
    if info["missing_keys"]:
        names = ", ".join(sorted(info["missing_keys"])[:3])
        msg = (
            f"A model must hold all its weights; got none for {names} ({source}). Export it again."
        )
        raise ConfigError(msg)
    if info["mismatched_keys"]:
        name, stored, wanted = sorted(info["mismatched_keys"])[0]
        msg = (
            f"A model's weights must have the sizes of its config.json; got {tuple(stored)} for "
            f"{name}, not {tuple(wanted)} ({source}). Export it again."
        )
        raise ConfigError(msg)
    return model


def _from_scratch(weights: ScratchWeights, tokenizer: Any) -> Any:
    if weights.architecture == "t5":
        return T5ForConditionalGeneration(t5_config(weights, tokenizer))
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=weights.hidden_size,
        intermediate_size=weights.ffn_size,
        num_hidden_layers=weights.num_layers,
        num_attention_heads=NUM_HEADS,
        num_key_value_heads=NUM_HEADS,
        attention_dropout=weights.dropout,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config)


def t5_config(weights: ScratchEncoder, tokenizer: Any) -> T5Config:
    """Size a T5 v1.1 (gated GELU) for a tokenizer."""
    return T5Config(
        vocab_size=len(tokenizer),
        d_model=weights.hidden_size,
        d_ff=weights.ffn_size,
        d_kv=weights.hidden_size // NUM_HEADS,
        num_layers=weights.num_layers,
        num_heads=NUM_HEADS,
        dropout_rate=weights.dropout,
        feed_forward_proj="gated-gelu",
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
