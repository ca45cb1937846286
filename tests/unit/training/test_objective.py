"""The training step against the plain way: every rationale with its own copy of the question."""

from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GraniteConfig,
)
from transformers.modeling_layers import GradientCheckpointingLayer

from qcrd_core.config.method import LossSection
from qcrd_core.student.model import wrap
from qcrd_core.training.batches import Example, Rationale, batch_rows, collate, skip_shared_tokens
from qcrd_core.training.mutual_information import mutual_information_loss
from qcrd_core.training.objective import QcrdObjective
from tests.support.slow_objective import make_draws, make_examples, slow_loss
from tests.support.tiny_models import tiny_llama, tiny_t5

LOSS = LossSection(delta=20.0)  # above a random model's cross entropy: the hinge is active
OPTIONS = [
    {"pos_select": "min", "neg_select": "max"},
    {"pos_select": "softmin", "neg_select": "mean"},
    {"pos_select": "sample", "neg_select": "min"},
    {"neg_loss": "softplus", "neg_tokens": "after_divergence"},
]


def _nll(model, prompt, target, first=0):
    counted = [-100] * first + target[first:]
    if model.config.is_encoder_decoder:
        return model(
            input_ids=torch.tensor([prompt]),
            decoder_input_ids=torch.tensor([[0, *target[:-1]]]),
            labels=torch.tensor([counted]),
        ).loss
    labels = torch.tensor([[-100] * len(prompt) + counted])
    return model(input_ids=torch.tensor([prompt + target]), labels=labels).loss


@pytest.mark.parametrize("make", [tiny_t5, tiny_llama], ids=["t5", "llama"])
@pytest.mark.parametrize("max_buckets", [1, 2])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options.values()))
def test_objective_equals_slow_loop_in_loss_and_gradient(make, max_buckets, options):
    model, examples, settings = make(), make_examples(), LossSection(delta=20.0, **options)
    draws = make_draws(len(examples))
    objective = QcrdObjective(wrap(model), settings, max_buckets=max_buckets)
    taken = skip_shared_tokens(examples)[0] if "neg_tokens" in options else examples
    loss, parts = objective(collate(taken, 0, 1, draws))
    loss.backward()
    fast = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    slow = slow_loss(partial(_nll, model), examples, settings, draws)
    slow.backward()
    assert loss.item() == pytest.approx(slow.item(), abs=1e-5)
    assert parts[0].item() == pytest.approx(loss.item())
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(fast[name], parameter.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("make", [tiny_t5, tiny_llama], ids=["t5", "llama"])
def test_objective_with_gradient_checkpointing_has_equal_loss_and_gradient(make):
    batch, gradients, losses = collate(make_examples(), 0, 1), [], []
    for is_on in (False, True):
        model = make().train()
        if is_on:
            model.gradient_checkpointing_enable()
        loss, _ = QcrdObjective(wrap(model), LossSection(delta=20.0), max_buckets=2)(batch)
        with _counted_passes(model) as passes:
            loss.backward()
        # Layers, which the backward pass computes again for each pass with gradient.
        assert (sum(passes) > 0) is is_on
        losses.append(loss.item())
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("make", [tiny_t5, tiny_llama], ids=["t5", "llama"])
def test_choice_in_pieces_of_logits_is_the_same(make, monkeypatch):
    student, batch = wrap(make()), collate(make_examples(), 0, 1)
    objective = QcrdObjective(student, LossSection(delta=20.0), max_buckets=2)
    shapes, logits = [], student._logits
    monkeypatch.setattr(student, "_logits", lambda x: shapes.append(len(x)) or logits(x))
    whole, _ = objective(batch)
    longest = max(shapes)
    shapes.clear()
    monkeypatch.setattr("qcrd_core.student.model._LOGITS_PER_PIECE", 7 * 200)

    pieces, _ = objective(batch)

    assert pieces.item() == pytest.approx(whole.item(), abs=1e-6)
    assert 7 in shapes  # without gradient
    assert max(shapes) <= longest


@contextmanager
def _counted_passes(model):
    passes = []
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    hooks = [layer.register_forward_pre_hook(lambda *_: passes.append(1)) for layer in layers]
    try:
        yield passes
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("make", [tiny_t5, tiny_llama], ids=["t5", "llama"])
def test_objective_without_any_rationale_is_label_loss(make):
    examples = [Example("a", [5, 6], [7], [8, 1], ()), Example("b", [9], [7, 4], [8], ())]
    model = make()
    loss, _ = QcrdObjective(wrap(model), LOSS, max_buckets=2)(collate(examples, 0, 1))
    label = (_nll(model, [5, 6], [8, 1]) + _nll(model, [9], [8])) / 2
    assert loss.item() == pytest.approx(LOSS.alpha_label * label.item(), abs=1e-6)


def _family(config_class, **more):
    torch.manual_seed(0)
    config = config_class(
        vocab_size=200,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        **more,
    )
    return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize(
    "make",
    [
        partial(_family, CohereConfig, logit_scale=0.5),
        partial(_family, GraniteConfig, logits_scaling=4.0),
        partial(_family, Gemma2Config, final_logit_softcapping=0.1),
    ],
    ids=["cohere", "granite", "gemma2"],
)
def test_causal_families_that_scale_their_logits_have_their_own_cross_entropy(make):
    model = make()
    batch = collate([Example("a", [5, 6], [7], [8, 1], ()), Example("b", [9], [7], [8], ())], 0, 1)
    student = wrap(model)
    context = student.read(batch.prompt_ids, batch.prompt_mask)
    nll = student.nll(context, torch.arange(2), batch.label_ids, batch.label_mask)
    alone = torch.stack([_nll(model, [5, 6], [8, 1]), _nll(model, [9], [8])])
    torch.testing.assert_close(nll, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("make", [tiny_t5, tiny_llama], ids=["t5", "llama"])
def test_dss_is_half_the_label_and_half_the_one_rationale(make):
    examples = [
        Example("a", [5, 6], [7], [8, 1], (Rationale([9, 9, 1], True, 1.0),)),
        Example("b", [9], [7, 4], [8], (Rationale([5, 1], True, 1.0),)),
    ]
    model, dss = make(), LossSection(beta=0.0, quality_weights=False)
    loss, _ = QcrdObjective(wrap(model), dss, max_buckets=2)(collate(examples, 0, 1))
    label = (_nll(model, [5, 6], [8, 1]) + _nll(model, [9], [8])) / 2
    rationale = (_nll(model, [7], [9, 9, 1]) + _nll(model, [7, 4], [5, 1])) / 2
    assert loss.item() == pytest.approx((0.5 * label + 0.5 * rationale).item(), abs=1e-6)


def _peaks(model, prompts, targets):
    """Largest probability of each word over all positions of a padded batch, [B, V]."""
    longest = max(len(target) for target in targets)
    peaks = []
    for prompt, target in zip(prompts, targets, strict=True):
        padded = target + [0] * (longest - len(target))
        if model.config.is_encoder_decoder:
            fed = torch.tensor([[0, *padded[:-1]]])
            logits = model(input_ids=torch.tensor([prompt]), decoder_input_ids=fed).logits[0]
        else:
            ids = torch.tensor([prompt + padded])
            seen = torch.tensor([[1] * len(prompt + target) + [0] * (longest - len(target))])
            logits = model(input_ids=ids, attention_mask=seen).logits[0, len(prompt) - 1 : -1]
        peaks.append(logits.softmax(dim=-1).max(dim=0).values)
    return torch.stack(peaks).detach().numpy().astype("float64")


def test_mutual_information_is_the_published_formula():
    examples = [
        Example("a", [5, 6], [7], [8, 1], (Rationale([9, 9, 1], True, 1.0),)),
        Example("b", [9], [7, 4], [8], (Rationale([5, 1], True, 1.0),)),
        Example("c", [9, 9], [3], [8, 8], ()),
    ]
    model = tiny_t5()
    terms = {
        weight: QcrdObjective(
            wrap(model),
            LossSection(beta=0.0, quality_weights=False, beta_mutual_information=weight),
            max_buckets=2,
        )(collate(examples, 0, 1))[0]
        for weight in (0.0, 0.1)
    }
    p = _peaks(model, [[5, 6], [9], [9, 9]], [[8, 1], [8], [8, 8]])[:2]
    e = _peaks(model, [[7], [7, 4]], [[9, 9, 1], [5, 1]])
    log_softmax = e - np.log(np.exp(e).sum(axis=1, keepdims=True))
    mutual = -(p * log_softmax).sum(axis=1).sum() / 3  # "c" has no rationale: its term is 0
    assert (terms[0.1] - terms[0.0]).item() == pytest.approx(0.1 * mutual, abs=1e-5)


def test_mutual_information_pulls_the_rationale_and_not_the_label():
    label, rationale = (torch.rand(2, 5, requires_grad=True) for _ in range(2))
    mutual_information_loss(rationale, label).sum().backward()
    assert label.grad is None
    assert rationale.grad.abs().sum() > 0


def _bigram(model, embedding, head):
    """Leave a model nothing but embedding, norm and head: the token before predicts the next."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if "norm" in name else 0.0)
        model.lm_head.weight.copy_(head)
        model.get_input_embeddings().weight.copy_(embedding)
    return model


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options.values()))
def test_t5_and_causal_student_agree_on_the_same_toy_model(options):
    embedding, scale = torch.randn(200, 32, generator=torch.Generator().manual_seed(0)), 32**-0.5
    t5 = _bigram(tiny_t5(), embedding, embedding)  # one matrix, and scaled before the head
    llama = _bigram(tiny_llama(), embedding, scale * embedding)
    # T5 starts with token 0, a causal model with the prompt's last token: prompts end with it.
    examples = [
        replace(e, predict_ids=[*e.predict_ids, 0], explain_ids=[*e.explain_ids, 0])
        for e in make_examples()
    ]
    if "neg_tokens" in options:
        examples, _ = skip_shared_tokens(examples)
    batch = collate(examples, 0, 1, make_draws(len(examples)))
    losses = []
    for model in (t5, llama):
        loss = LossSection(delta=20.0, **options)
        losses.append(QcrdObjective(wrap(model), loss, max_buckets=2)(batch)[0])
        losses[-1].backward()
    assert losses[0].item() == pytest.approx(losses[1].item(), abs=1e-5)
    parts = (llama.model.embed_tokens.weight.grad, scale * llama.lm_head.weight.grad)
    torch.testing.assert_close(t5.shared.weight.grad, sum(parts), atol=1e-5, rtol=1e-4)


def test_fine_tuning_reads_no_rationale():
    examples = make_examples()
    student = wrap(tiny_t5())
    finetune = LossSection(alpha_label=1.0, alpha_contrastive=0.0)
    seen = []
    read = student.read
    student.read = lambda ids, mask, **more: seen.append(len(ids)) or read(ids, mask, **more)
    loss, parts = QcrdObjective(student, finetune, max_buckets=2)(collate(examples, 0, 1))
    label = sum(_nll(student.model, e.predict_ids, e.label_ids) for e in examples) / len(examples)
    assert loss.item() == pytest.approx(label.item(), abs=1e-5)
    assert seen == [len(examples)]
    assert parts[2:].tolist() == [0.0, 0.0, 0.0]


def test_objective_ignores_order_of_rationales_and_padding():
    examples = make_examples()
    turned = [
        Example(e.question_id, e.predict_ids, e.explain_ids, e.label_ids, e.rationales[::-1])
        for e in examples
    ]
    longer = [*turned, Example("pad", [3] * 40, [3] * 40, [1], (Rationale([3] * 40, True, 1.0),))]
    objective = QcrdObjective(wrap(tiny_t5()), LOSS, max_buckets=2)
    with torch.no_grad():
        first = objective(collate(examples, 0, 1))[0]
        second = objective(collate(turned, 0, 1))[0]
        padded = objective(collate(longer, 0, 1))[0]
        alone = objective(collate(longer[-1:], 0, 1))[0]
    assert second.item() == pytest.approx(first.item(), abs=1e-6)
    assert padded.item() == pytest.approx((8 * first.item() + alone.item()) / 9, abs=1e-5)


def test_batch_rows_visit_every_example_once_an_epoch():
    rows = [row for step in range(5) for row in batch_rows(10, 4, step, seed=3)]
    assert sorted(rows[:10]) == sorted(rows[10:]) == list(range(10))
    assert batch_rows(10, 4, 2, seed=3) == rows[8:12]
