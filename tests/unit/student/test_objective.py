"""The training step against the plain way: every rationale with its own copy of the question."""

from functools import partial

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

from qcrd_core.config_method import LossSection
from qcrd_core.student.batches import Example, Rationale, batch_rows, collate, skip_shared_tokens
from qcrd_core.student.model import wrap
from qcrd_core.student.objective import QcrdObjective
from tests.support.slow_objective import make_draws, make_examples, slow_loss

LOSS = LossSection(delta=20.0)  # above a random model's cross entropy: the hinge is active
OPTIONS = [
    {"pos_select": "min", "neg_select": "max"},
    {"pos_select": "softmin", "neg_select": "mean"},
    {"pos_select": "sample", "neg_select": "min"},
    {"neg_loss": "pairwise", "neg_tokens": "after_divergence"},
]


def _t5():
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=200,
        d_model=32,
        d_ff=64,
        num_layers=2,
        num_heads=2,
        d_kv=16,
        feed_forward_proj="gated-gelu",
        decoder_start_token_id=0,
        dropout_rate=0.0,
    )
    return T5ForConditionalGeneration(config)


def _llama():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=200,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    return LlamaForCausalLM(config)


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


@pytest.mark.parametrize("make", [_t5, _llama], ids=["t5", "llama"])
@pytest.mark.parametrize("num_buckets", [1, 2])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options.values()))
def test_objective_equals_slow_loop_in_loss_and_gradient(make, num_buckets, options):
    model, examples, settings = make(), make_examples(), LossSection(delta=20.0, **options)
    draws = make_draws(len(examples))
    objective = QcrdObjective(wrap(model), settings, num_buckets=num_buckets)
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


@pytest.mark.parametrize("make", [_t5, _llama], ids=["t5", "llama"])
def test_objective_without_any_rationale_is_label_loss(make):
    examples = [Example("a", [5, 6], [7], [8, 1], ()), Example("b", [9], [7, 4], [8], ())]
    model = make()
    loss, _ = QcrdObjective(wrap(model), LOSS, num_buckets=2)(collate(examples, 0, 1))
    label = (_nll(model, [5, 6], [8, 1]) + _nll(model, [9], [8])) / 2
    assert loss.item() == pytest.approx(LOSS.alpha_label * label.item(), abs=1e-6)


def test_objective_ignores_order_of_rationales_and_padding():
    examples = make_examples()
    turned = [
        Example(e.question_id, e.predict_ids, e.explain_ids, e.label_ids, e.rationales[::-1])
        for e in examples
    ]
    longer = [*turned, Example("pad", [3] * 40, [3] * 40, [1], (Rationale([3] * 40, True, 1.0),))]
    objective = QcrdObjective(wrap(_t5()), LOSS, num_buckets=2)
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
