from collections import Counter
from functools import cache

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from qcrd_core.config.models import ScratchWeights
from qcrd_core.student.decoding import DecodeOptions, _sample, write
from qcrd_core.student.tokenizer import make_tokenizer
from qcrd_core.student.weights import make_student

PROMPTS = [f"explain: {number} + {number * number}{' + 2' * (number % 4)}" for number in range(16)]
MAX_NEW_TOKENS = 16


def _student(architecture):
    tokenizer = make_tokenizer([*PROMPTS, "= 4"], 60)
    tiny = ScratchWeights(architecture=architecture, hidden_size=32, num_layers=2)
    return make_student(tiny, tokenizer, seed=0), tokenizer


@cache
def _talkative(architecture):
    """A student whose texts differ, and end at many lengths: with the token it writes most.

    Also returns its tokenizer, and what transformers' own loop writes.
    """
    model, tokenizer = _student(architecture)
    model.eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(6)
    tokens = [token for text in _generate(model, tokenizer) for token in text]
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(Counter(tokens).most_common(1)[0][0])
    return model, tokenizer, _generate(model, tokenizer)


def _generate(model, tokenizer):
    """Greedy tokens of transformers' own loop, one prompt at a time."""
    texts = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        start = len(ids)
        if model.config.is_encoder_decoder:
            ids, start = [*ids, tokenizer.eos_token_id], 1
        output = model.generate(
            input_ids=torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        texts.append(output[0, start:].tolist())
    return texts


def _write(student, prompts=PROMPTS, **options):
    done = []
    written = write(
        *student,
        prompts,
        DecodeOptions(MAX_NEW_TOKENS, **options),
        lambda event: done.append(event["advance"]),
    )
    assert sum(done) == len(prompts)
    return written


@pytest.mark.parametrize("architecture", ["t5", "llama"])
@pytest.mark.parametrize("batch_size", [1, 3, 7, 32])
def test_write_greedy_gives_the_texts_of_generate(architecture, batch_size):
    model, tokenizer, expected = _talkative(architecture)
    lengths = {len(tokens) for tokens in expected}
    assert len(lengths) > 3  # otherwise no text would join another in its midst

    written = _write((model, tokenizer), batch_size=batch_size)

    ended = [tokens[-1] == tokenizer.eos_token_id for tokens in expected]
    assert [text.is_finished for text in written] == ended
    assert [text.num_tokens for text in written] == [
        len(tokens) - is_finished for tokens, is_finished in zip(expected, ended, strict=True)
    ]
    assert [text.text for text in written] == [
        tokenizer.decode(tokens[: len(tokens) - is_finished], skip_special_tokens=True).strip()
        for tokens, is_finished in zip(expected, ended, strict=True)
    ]


@pytest.mark.parametrize("architecture", ["t5", "llama"])
def test_write_greedy_gives_the_log_probability_of_its_text(architecture):
    model, tokenizer, expected = _talkative(architecture)
    written = _write((model, tokenizer), batch_size=3)
    for prompt, tokens, item in zip(PROMPTS, expected, written, strict=True):
        ids = torch.tensor([tokenizer(prompt, add_special_tokens=False)["input_ids"]])
        told = torch.tensor([tokens])
        with torch.no_grad():
            if model.config.is_encoder_decoder:
                end = torch.tensor([[tokenizer.eos_token_id]])
                logits = model(input_ids=torch.cat([ids, end], dim=1), labels=told).logits[0]
            else:
                whole = model(input_ids=torch.cat([ids, told], dim=1)).logits[0]
                logits = whole[ids.shape[1] - 1 : -1]
        each = logits.log_softmax(dim=-1).gather(1, told[0][:, None])
        assert item.logprob == pytest.approx(each.sum().item(), abs=1e-3)


def test_write_sampled_gives_no_log_probability():
    written = _write(_student("t5"), batch_size=8, sampling_temperature=1.5)
    assert {item.logprob for item in written} == {None}


def test_write_alone_gives_equal_prompts_equal_texts_and_each_that_of_the_first_place():
    student = _student("t5")
    options = {"batch_size": 8, "sampling_temperature": 1.5, "seed": 1}
    texts = _write(student, PROMPTS[:2] * 3, are_alone=True, **options)
    assert texts == [_write(student, [prompt], **options)[0] for prompt in PROMPTS[:2] * 3]


@pytest.mark.parametrize("architecture", ["t5", "llama"])
def test_write_samples_the_same_whatever_is_written_beside(architecture):
    student = _student(architecture)
    options = {"sampling_temperature": 1.5, "seed": 1}
    alone = _write(student, batch_size=1, **options)
    assert any(text.is_finished for text in alone)
    assert alone == _write(student, batch_size=5, **options)
    assert alone[:9] == _write(student, PROMPTS[:9], batch_size=32, **options)


def test_write_with_another_seed_samples_something_else():
    student = _student("t5")
    first, second = (
        _write(student, batch_size=8, sampling_temperature=1.5, seed=seed) for seed in (1, 2)
    )
    assert all(a != b for a, b in zip(first, second, strict=True))


def test_write_gives_equal_prompts_texts_of_their_own():
    texts = _write(_student("t5"), PROMPTS[:1] * 8, batch_size=8, sampling_temperature=1.5)
    assert len(set(texts)) == 8


def test_write_without_prompts_writes_nothing():
    assert _write(_student("t5"), [], batch_size=8) == []


def test_sample_takes_the_token_at_which_the_probabilities_reach_the_draw():
    logits = torch.tensor([0.5, 0.0, 0.25, 0.25]).log().expand(6, 4)
    draws = torch.tensor([1e-9, 0.5, 0.51, 0.75, 0.76, 1.0])
    assert _sample(logits, draws).tolist() == [0, 0, 2, 2, 3, 3]


def test_sample_draws_each_token_as_often_as_it_is_probable():
    draws = (torch.arange(1000) + 1) / 1000
    probabilities = torch.tensor([0.1, 0.2, 0.3, 0.4])
    tokens = _sample(probabilities.log().expand(1000, 4), draws)
    counts = torch.bincount(tokens, minlength=4)
    assert (counts - 1000 * probabilities).abs().max() <= 1  # a draw may fall on a boundary


def test_make_student_is_the_same_for_the_same_seed():
    first, second = _student("t5")[0], _student("t5")[0]
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)
    )
    assert isinstance(_student("llama")[0], LlamaForCausalLM)
    assert isinstance(_student("llama")[0].config, LlamaConfig)
