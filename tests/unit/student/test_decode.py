import torch
from transformers import LlamaConfig, LlamaForCausalLM

from qcrd_core.config import ScratchWeights
from qcrd_core.student.decode import DecodeOptions, write
from qcrd_core.student.tokenizer import make_tokenizer
from qcrd_core.student.weights import make_student

PROMPTS = ["explain: 2 + 2", "explain: 12 + 7 + 9 + 5", "explain: 3"]


def _student(architecture):
    tokenizer = make_tokenizer([*PROMPTS, "= 4"], 100)
    tiny = ScratchWeights(
        architecture=architecture, hidden_size=32, ffn_size=64, num_layers=1, num_heads=2
    )
    return make_student(tiny, tokenizer, seed=0), tokenizer


def _texts(architecture, prompts, **options):
    model, tokenizer = _student(architecture)
    done = []
    written = write(
        model,
        tokenizer,
        prompts,
        DecodeOptions(max_new_tokens=8, **options),
        lambda event: done.append(event["advance"]),
    )
    assert sum(done) == len(prompts)
    return [w.text for w in written]


def test_write_greedy_gives_each_prompt_the_text_it_gets_alone():
    for architecture in ("t5", "llama"):
        together = _texts(architecture, PROMPTS, batch_size=3)
        assert together == [_texts(architecture, [p], batch_size=1)[0] for p in PROMPTS]


def test_write_with_one_seed_repeats_itself_and_with_another_does_not():
    options = {"batch_size": 2, "sampling_temperature": 1.5}
    first = _texts("t5", PROMPTS, seed=1, **options)
    assert first == _texts("t5", PROMPTS, seed=1, **options)
    assert first != _texts("t5", PROMPTS, seed=2, **options)


def test_make_student_is_the_same_for_the_same_seed():
    first, second = _student("t5")[0], _student("t5")[0]
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)
    )
    assert isinstance(_student("llama")[0], LlamaForCausalLM)
    assert isinstance(_student("llama")[0].config, LlamaConfig)
