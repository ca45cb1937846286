"""Random models of a few thousand weights with a tokenizer of their own, for the real engine."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

_CHAT_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def make_tiny_llama(folder: Path, *, max_length: int = 128) -> Path:
    """Write the model folder; the same weights each time."""
    num_tokens = _write_tokenizer(folder, [])
    config = LlamaConfig(**_sizes(num_tokens, max_length))
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def make_tiny_thinker(folder: Path, *, max_length: int = 256) -> Path:
    """Write the folder of a Qwen3 that writes think tags now and then, as any other token."""
    num_tokens = _write_tokenizer(folder, ["<think>", "</think>"])
    config = Qwen3Config(**_sizes(num_tokens, max_length), head_dim=32)
    torch.manual_seed(0)
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


def _write_tokenizer(folder: Path, added: list[str]) -> int:
    """Write a tokenizer; returns its number of tokens.

    Every printable character is a token, so any prompt can be read without training a tokenizer.
    """
    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<eos>", *characters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")
    wrapped.add_tokens(added)
    wrapped.chat_template = _CHAT_TEMPLATE
    wrapped.save_pretrained(folder)
    return len(wrapped)


def _sizes(num_tokens: int, max_length: int) -> dict[str, Any]:
    return {
        "vocab_size": num_tokens,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": max_length,
        "bos_token_id": None,
        "eos_token_id": 0,
    }
