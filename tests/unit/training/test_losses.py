"""Numbers worked out by hand, and a slow loop written from the equations."""

import math

import pytest
import torch

from qcrd_core.student.model import sequence_mean, token_nll
from qcrd_core.training import losses


def test_sequence_mean_averages_per_sequence_not_per_batch():
    # Two classes with equal logits cost log 2 a token; the second sequence is surely right.
    logits = torch.tensor([[0.0, 0.0], [0.0, 0.0], [100.0, 0.0]])
    nll = token_nll(logits, torch.tensor([0, 1, 0]))
    mean = sequence_mean(nll, torch.tensor([0, 0, 1]), 3)
    assert mean.tolist() == pytest.approx([0.6931472, 0.0, 0.0])


MASK = torch.tensor([[True, True, False], [False, False, False]])


def test_choose_min_and_max_look_at_existing_rationales_only():
    nll = torch.tensor([[3.0, 1.0, 0.1], [0.0, 0.0, 0.0]])
    assert losses.choose_min(nll, MASK)[0].item() == 1
    assert losses.choose_max(-nll, MASK)[0].item() == 1


@pytest.mark.parametrize(("draw", "index"), [(0.0, 0), (0.49, 0), (0.5, 2), (0.99, 2)])
def test_choose_sample_divides_the_draw_among_existing_rationales(draw, index):
    mask = torch.tensor([[True, False, True]])
    assert losses.choose_sample(mask, torch.tensor([draw])).tolist() == [index]


def test_weights_of_existing_rationales_sum_to_one():
    third = torch.tensor([[0.3, 0.1, 0.9], [0.5, 0.5, 0.5]])
    assert losses.mean_weights(MASK).tolist() == [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]
    weighted = losses.quality_weights(third, MASK)
    torch.testing.assert_close(weighted, torch.tensor([[0.75, 0.25, 0.0], [0.0, 0.0, 0.0]]))
    # exp(-1) : exp(-2) = 0.7310586 : 0.2689414.
    softmin = losses.softmin_weights(torch.tensor([[2.0, 4.0, 0.0]] * 2), MASK, temperature=2.0)
    torch.testing.assert_close(softmin, torch.tensor([[0.7310586, 0.2689414, 0.0], [0.0] * 3]))


def test_quality_weights_of_worthless_rationales_are_zero():
    weights = losses.quality_weights(torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool))
    assert weights.tolist() == [[0.0, 0.0]]


def test_negative_loss_beyond_margin_is_exactly_zero_with_zero_gradient():
    nll = torch.tensor([3.0, 4.5], requires_grad=True)
    loss = losses.negative_loss(nll, torch.tensor([0.8, 0.8]), delta=3.0)
    loss.sum().backward()
    assert loss.tolist() == [0.0, 0.0]
    assert nll.grad is not None
    assert nll.grad[1].item() == 0.0


def test_softplus_negative_loss_approaches_the_hinge():
    nll, score = torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0.5, 0.5, 0.5])
    hinge = losses.negative_loss(nll, score, 3.0)
    smooth = losses.softplus_negative_loss(nll, score, 3.0, sharpness=200.0)
    torch.testing.assert_close(smooth, hinge, atol=2e-3, rtol=0)
    # At the margin -(1 - s) log(2) / b.
    at_margin = losses.softplus_negative_loss(nll, score, 3.0, 2.0)[1].item()
    assert at_margin == pytest.approx(-0.5 * 0.6931472 / 2)


def test_pairwise_negative_loss_pulls_positive_as_much_as_it_pushes_negative():
    negative = torch.tensor([[2.0]], requires_grad=True)
    positive = torch.tensor([1.0], requires_grad=True)
    weight = torch.tensor([[0.75]])
    loss = -losses.pairwise_negative_loss(negative, positive, weight, delta=1.0, sharpness=2.0)
    loss.sum().backward()
    # 0.75 softplus(-(2 * 1 - 2)) / 2; half the slope of 0.75 each way.
    assert loss.item() == pytest.approx(0.75 * 0.6931472 / 2)
    assert negative.grad is not None
    assert positive.grad is not None
    assert (negative.grad.item(), positive.grad.item()) == pytest.approx((-0.375, 0.375))


@pytest.mark.parametrize(
    ("positives", "first"),
    [([], 0), ([[9]], 0), ([[5, 6, 9], [5, 9]], 2), ([[5, 6, 7, 1]], 4), ([[5, 6]], 2)],
    ids=["none", "other", "longest", "copy", "prefix"],
)
def test_first_divergence_is_from_the_nearest_positive(positives, first):
    assert losses.first_divergence([5, 6, 7, 1], positives) == first


def test_contrastive_loss_pushes_negative_up_and_positive_down():
    positive = torch.tensor([2.0], requires_grad=True)
    negative = torch.tensor([1.0], requires_grad=True)
    score = torch.tensor([0.5])
    loss = losses.contrastive_loss(
        losses.positive_loss(positive, score), losses.negative_loss(negative, score, 3.0), beta=0.2
    )
    loss.backward()
    # 0.5 * 2 - 0.2 * (0.5 * (1 - 3)) = 1.2; d/dCE_pos = 0.5, d/dCE_neg = -0.2 * 0.5.
    assert loss.item() == pytest.approx(1.2)
    assert positive.grad is not None
    assert negative.grad is not None
    assert (positive.grad.item(), negative.grad.item()) == pytest.approx((0.5, -0.1))


def test_scores_are_detached_in_both_terms():
    score = torch.tensor([0.5], requires_grad=True)
    nll = torch.tensor([1.0], requires_grad=True)
    (losses.positive_loss(nll, score) + losses.negative_loss(nll, score, 3.0)).sum().backward()
    assert score.grad is None


# Question 0 has one positive and two negatives, question 7 two positives and one negative.
LOGITS = [0.5, -1.0, 2.0, 0.0, 1.5, -0.5]
POSITIVE = [True, False, False, True, True, False]
QUESTION = [0, 0, 0, 7, 7, 7]


def _slow_quality(logits, name):
    s = [1 / (1 + math.exp(-z)) for z in logits]
    if name == "bce":
        chosen = [v if p else 1 - v for v, p in zip(s, POSITIVE, strict=True)]
        return -sum(map(math.log, chosen)) / len(s)
    total = 0.0
    for asked in (0, 7):
        rows = [k for k, q in enumerate(QUESTION) if q == asked]
        values = s if name == "ratio" else logits
        above = sum(math.exp(values[k]) for k in rows if POSITIVE[k])
        below = sum(math.exp(values[k]) for k in rows if name == "infonce" or not POSITIVE[k])
        total -= math.log(above / below) / 2
    return total


@pytest.mark.parametrize("name", ["bce", "ratio", "infonce"])
def test_quality_losses_equal_their_equations_in_value_and_slope(name):
    logits = torch.tensor(LOGITS, dtype=torch.float64, requires_grad=True)
    rest = () if name == "bce" else (torch.tensor(QUESTION),)
    loss = getattr(losses, f"quality_{name}")(logits, torch.tensor(POSITIVE), *rest)
    loss.backward()
    assert loss.item() == pytest.approx(_slow_quality(LOGITS, name), abs=1e-12)
    for k in range(len(LOGITS)):
        ends = [[*LOGITS[:k], LOGITS[k] + h, *LOGITS[k + 1 :]] for h in (1e-6, -1e-6)]
        above, below = (_slow_quality(end, name) for end in ends)
        assert logits.grad is not None
        assert logits.grad[k].item() == pytest.approx((above - below) / 2e-6, abs=1e-8)


def test_distillation_loss_weighs_its_two_terms():
    total = losses.distillation_loss(
        torch.tensor(2.0), torch.tensor(4.0), alpha_label=0.5, alpha_contrastive=0.25
    )
    assert total.item() == pytest.approx(2.0)
