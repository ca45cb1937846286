"""Students of many architectures: our loss is transformers' own, or the student is refused."""

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    CohereConfig,
    CohereForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTJConfig,
    GPTJForCausalLM,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MptConfig,
    MptForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    RwkvConfig,
    RwkvForCausalLM,
    StableLmConfig,
    StableLmForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from qcrd_core.errors import ConfigError
from qcrd_core.student.check import check_context, check_model, compare_with_itself
from qcrd_core.student.model import wrap
from qcrd_core.student.tokenizer import make_tokenizer, pad_rows

TOKENIZER = make_tokenizer(["What is 12 + 3? It is 15."] * 3, 60)
ENDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
BASE = {"vocab_size": 64, "hidden_size": 32, **ENDS}
ROPE = {**BASE, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
GPT = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, **ENDS}
T5 = {"vocab_size": 64, "d_model": 32, "d_ff": 64, "d_kv": 16, "num_layers": 2, "num_heads": 2}
OPT = {"num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 64, "word_embed_proj_dim": 16}
NEO = {"num_layers": 2, "num_heads": 2, "attention_types": [[["global", "local"], 1]]}

STUDENTS = [
    (GPT2LMHeadModel, GPT2Config(**GPT)),
    (GPTJForCausalLM, GPTJConfig(**GPT, rotary_dim=8)),
    (GPTNeoForCausalLM, GPTNeoConfig(**BASE, **NEO)),
    (GPTNeoXForCausalLM, GPTNeoXConfig(**ROPE)),
    (BloomForCausalLM, BloomConfig(**BASE, n_layer=2, n_head=2)),
    (OPTForCausalLM, OPTConfig(**BASE, **OPT)),
    (Qwen2ForCausalLM, Qwen2Config(**ROPE, num_key_value_heads=2, tie_word_embeddings=True)),
    (PhiForCausalLM, PhiConfig(**ROPE)),
    (Phi3ForCausalLM, Phi3Config(**ROPE)),
    (GemmaForCausalLM, GemmaConfig(**ROPE, num_key_value_heads=1, head_dim=16)),
    (Gemma2ForCausalLM, Gemma2Config(**ROPE, num_key_value_heads=1, head_dim=16)),
    (MistralForCausalLM, MistralConfig(**ROPE, num_key_value_heads=2)),
    (FalconForCausalLM, FalconConfig(**BASE, num_hidden_layers=2, num_attention_heads=2)),
    (StableLmForCausalLM, StableLmConfig(**ROPE, num_key_value_heads=2)),
    (CohereForCausalLM, CohereConfig(**ROPE, logit_scale=0.1)),
    (T5ForConditionalGeneration, T5Config(**T5, decoder_start_token_id=0)),
]
REFUSED = [
    (MptForCausalLM, MptConfig(vocab_size=64, d_model=32, n_layers=2, n_heads=2), "does not run"),
    (RwkvForCausalLM, RwkvConfig(**BASE, num_hidden_layers=2), "other numbers through qcrd"),
]


def _make(kind, config):
    torch.manual_seed(0)
    return kind(config).eval()


def _own_loss(model, prompt, target):
    """The loss that transformers returns for its own labels."""
    if model.config.is_encoder_decoder:
        return model(input_ids=torch.tensor([prompt]), labels=torch.tensor([target])).loss
    labels = torch.tensor([[-100] * len(prompt) + target])
    return model(input_ids=torch.tensor([prompt + target]), labels=labels).loss


@pytest.mark.parametrize(
    ("kind", "config"), STUDENTS, ids=lambda value: getattr(value, "__name__", "")
)
@torch.no_grad()
def test_loss_and_next_tokens_of_an_architecture_are_its_own(kind, config):
    model = _make(kind, config)
    prompts, targets = [[5, 6, 7], [9, 8, 7, 6, 5]], [[11, 12, 1], [13, 1]]
    own = [_own_loss(model, *pair).item() for pair in zip(prompts, targets, strict=True)]

    student = wrap(model)
    context = student.read(*pad_rows(prompts, 0))
    ours = student.nll(context, torch.tensor([0, 1]), *pad_rows(targets, 0))

    assert ours.tolist() == pytest.approx(own, abs=1e-4)
    found = compare_with_itself(model)
    assert max(found.loss, found.logit) < 1e-4
    check_model(model, TOKENIZER, "mine")


@pytest.mark.parametrize(("kind", "config", "reason"), REFUSED, ids=["mpt", "rwkv"])
def test_architecture_that_cannot_be_trained_is_refused_in_a_sentence(kind, config, reason):
    with pytest.raises(ConfigError, match=rf"student mine \({kind.__name__}\).*{reason}"):
        check_model(_make(kind, config), TOKENIZER, "mine")


def test_t5_that_does_not_say_how_it_starts_is_refused():
    model = _make(T5ForConditionalGeneration, T5Config(**T5))
    model.config.decoder_start_token_id = None
    with pytest.raises(ConfigError, match=r"no decoder_start_token_id in the config\.json of mine"):
        check_model(model, TOKENIZER, "mine")


def test_tokenizer_that_is_larger_than_the_vocabulary_is_refused():
    model = _make(GPT2LMHeadModel, GPT2Config(**GPT | {"vocab_size": 20}))
    with pytest.raises(ConfigError, match=r"got \d+ tokens and a model that knows 20 \(mine\)"):
        check_model(model, TOKENIZER, "mine")


def test_texts_beyond_the_positions_or_the_window_of_a_model_are_refused():
    model = _make(GPT2LMHeadModel, GPT2Config(**GPT))
    check_context(model, 64, "mine")
    with pytest.raises(ConfigError, match=r"the 64 tokens of mine \(max_position_embeddings"):
        check_context(model, 65, "mine")
    window = _make(MistralForCausalLM, MistralConfig(**ROPE, sliding_window=8))
    with pytest.raises(ConfigError, match=r"the 8 tokens of mine \(sliding_window"):
        check_context(window, 9, "mine")
