"""Every option of the loss in float64, with cross entropies that are free numbers.

The student here is a table: CE of each target sequence is a parameter. So loss and gradient can be
compared with a slow loop and with finite differences to many digits, without a model's rounding.
"""

import pytest
import torch

from qcrd_core.config.method import LossSection
from qcrd_core.student.model import Context, Student
from qcrd_core.training.batches import (
    Example,
    Rationale,
    batch_draws,
    collate,
    skip_shared_tokens,
)
from qcrd_core.training.objective import PARTS, QcrdObjective
from tests.support.slow_objective import COUNTS, make_draws, make_examples, slow_loss

SELECTIONS = [
    *({"pos_select": name} for name in ("min", "max", "mean", "weighted", "sample", "softmin")),
    *({"neg_select": name} for name in ("max", "min", "mean", "weighted", "sample")),
    {"pos_select": "sample", "neg_select": "mean"},
    {"pos_select": "softmin", "softmin_temperature": 0.2, "neg_select": "weighted"},
    {"pos_select": "mean", "neg_select": "mean"},
    {"neg_loss": "softplus"},
    {"neg_loss": "softplus", "neg_select": "weighted"},
    {"neg_loss": "pairwise"},
    {"neg_loss": "pairwise", "pos_select": "mean", "neg_select": "mean"},
    {"beta": 0.0, "neg_select": "max"},
    {"neg_tokens": "after_divergence"},
    {"neg_loss": "pairwise", "neg_select": "sample"},
]
MEAN_MEAN = {"pos_select": "mean", "neg_select": "mean"}


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class TableStudent(Student):
    """CE of a target is looked up by the prompt's and the target's tokens and its start."""

    def __init__(self, examples, seed):
        super().__init__(None)
        targets = [(e.predict_ids, e.label_ids, 0) for e in examples]
        for e in [*examples, *skip_shared_tokens(examples)[0]]:
            targets += [(e.explain_ids, r.ids, r.first) for r in e.rationales]
        keys = dict.fromkeys(_key(*target) for target in targets)
        self.index = {key: row for row, key in enumerate(keys)}
        torch.manual_seed(seed)
        # Around a margin of 3 nats: hinges on both sides of it.
        self.table = torch.nn.Parameter(6 * torch.rand(len(keys)))
        self.scored = []

    def read(self, prompt_ids, prompt_mask, **_):
        return Context(prompt_ids, prompt_mask, None)

    def _nll(self, context, question, ids, mask, first, **_):
        self.scored.append((len(ids), torch.is_grad_enabled()))
        prompts = _rows(context.prompt_ids, context.prompt_mask)
        targets = zip(question.tolist(), _rows(ids, mask), first.tolist(), strict=True)
        # A stand-in for a missing rationale belongs to another prompt, or to none.
        return self.table[[self.index.get(_key(prompts[q], *target), 0) for q, *target in targets]]

    def ce(self, prompt, target, first=0):
        return self.table[self.index[_key(prompt, target, first)]]


def _key(prompt, target, first):
    return tuple(prompt), tuple(target), first


def _batch(examples, loss, draws=None):
    if loss.neg_tokens == "after_divergence":
        examples, _ = skip_shared_tokens(examples)
    return collate(examples, 0, 1, draws)


def _rows(ids, mask):
    return [row[real.bool()].tolist() for row, real in zip(ids, mask, strict=True)]


def _both(options, seed, max_buckets=2):
    """Student, and the objective and the slow loop as functions of nothing."""
    loss = LossSection(**options)
    examples, draws = make_examples(seed), make_draws(len(COUNTS), seed)
    student = TableStudent(examples, seed)
    objective = QcrdObjective(student, loss, max_buckets=max_buckets)
    batch = _batch(examples, loss, draws)
    return (
        student,
        lambda: objective(batch)[0],
        lambda: slow_loss(student.ce, examples, loss, draws),
    )


def _gradient(student, compute):
    student.zero_grad()
    loss = compute()
    loss.backward()
    return loss.item(), student.table.grad.clone()


def _finite_differences(student, compute, step=1e-6):
    table, slopes = student.table.data, torch.zeros_like(student.table)
    for row in range(len(table)):
        value = table[row].item()
        table[row] = value + step
        above = compute().item()
        table[row] = value - step
        slopes[row] = (above - compute().item()) / (2 * step)
        table[row] = value
    return slopes


def _name(options):
    return ",".join(map(str, options.values()))


@pytest.mark.parametrize("options", SELECTIONS, ids=_name)
@pytest.mark.parametrize("max_buckets", [1, 2])
def test_objective_equals_slow_loop_on_random_ragged_questions(options, max_buckets):
    for seed in range(10):
        student, fast, slow = _both(options, seed, max_buckets)
        loss, gradient = _gradient(student, fast)
        slow_value, slow_gradient = _gradient(student, slow)
        assert loss == pytest.approx(slow_value, abs=1e-12)
        torch.testing.assert_close(gradient, slow_gradient, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    "options", [o for o in SELECTIONS if o.get("pos_select") != "softmin"], ids=_name
)
def test_gradient_equals_finite_differences_of_the_loss(options):
    student, fast, _ = _both(options, seed=3)
    _, gradient = _gradient(student, fast)
    torch.testing.assert_close(gradient, _finite_differences(student, fast), atol=1e-8, rtol=0)


def test_softmin_pulls_like_the_smooth_minimum():
    rationales = tuple(Rationale([5, k], True, 1.0) for k in range(4))
    examples = [Example("a", [5], [6], [7], rationales)]
    student = TableStudent(examples, seed=0)
    loss = LossSection(pos_select="softmin", softmin_temperature=0.7, alpha_label=0.0)
    batch = collate(examples, 0, 1)
    _, gradient = _gradient(student, lambda: QcrdObjective(student, loss, max_buckets=2)(batch)[0])

    def smooth_minimum():
        mean = torch.stack([torch.exp(-student.ce([6], r.ids) / 0.7) for r in rationales]).mean()
        return loss.alpha_contrastive * -0.7 * torch.log(mean)

    slopes = _finite_differences(student, smooth_minimum)
    torch.testing.assert_close(gradient, slopes, atol=1e-8, rtol=0)
    assert (gradient >= 0).all()


@pytest.mark.parametrize(
    ("options", "num_kept"),
    [
        ({}, 11),
        ({"pos_select": "sample"}, 11),
        ({"pos_select": "mean"}, 18),
        (MEAN_MEAN, 21),
        ({"beta": 0.0}, 6),
    ],
    ids=["min-max", "sample", "mean", "mean-mean", "no negatives"],
)
def test_only_rationales_that_count_are_scored_with_gradient(options, num_kept):
    student, fast, _ = _both(options, seed=0, max_buckets=1)
    fast()
    with_gradient = [count for count, has_gradient in student.scored if has_gradient]
    # Five questions have positives, five have negatives; one positive is a stand-in.
    # All in one pass, the labels too.
    assert with_gradient == [len(COUNTS) + num_kept]


def test_choices_that_need_no_cross_entropy_make_no_pass_without_gradient():
    student, fast, _ = _both({"pos_select": "sample", "neg_select": "sample"}, seed=0)
    fast()
    assert all(has_gradient for _, has_gradient in student.scored)


@pytest.mark.parametrize(
    "options", [o for o in SELECTIONS if "sample" not in o.values()], ids=_name
)
def test_order_of_rationales_and_padding_change_nothing(options):
    examples, loss = make_examples(seed=1), LossSection(**options)
    turned = [
        Example(e.question_id, e.predict_ids, e.explain_ids, e.label_ids, e.rationales[::-1])
        for e in examples
    ]
    long = Example("long", [3] * 40, [4] * 40, [5] * 40, (Rationale([6] * 40, True, 1.0),))
    student = TableStudent([*examples, long], seed=1)
    objective = QcrdObjective(student, loss, max_buckets=2)
    whole, back, padded, alone = (
        objective(_batch(some, loss))[0].item()
        for some in (examples, turned, [*examples, long], [long])
    )
    assert back == pytest.approx(whole, abs=1e-12)
    assert padded == pytest.approx((len(examples) * whole + alone) / (len(examples) + 1), abs=1e-12)


def test_weights_get_no_gradient_under_any_option():
    for options in SELECTIONS:
        examples = make_examples(seed=2)
        loss = LossSection(**options)
        batch = _batch(examples, loss, make_draws(len(examples)))
        batch.weight.requires_grad_()
        objective = QcrdObjective(TableStudent(examples, 2), loss, max_buckets=2)
        objective(batch)[0].backward()
        assert batch.weight.grad is None, options


def test_negatives_beyond_the_margin_have_no_loss_and_no_gradient():
    for select in ("max", "min", "mean", "weighted", "sample"):
        examples = make_examples(seed=4, counts=[(0, 3), (0, 1)])
        student = TableStudent(examples, seed=4)
        student.table.data += 3.0
        loss = LossSection(neg_select=select, alpha_label=0.0)
        total, parts = QcrdObjective(student, loss, max_buckets=2)(collate(examples, 0, 1))
        total.backward()
        assert (total.item(), parts[PARTS.index("active_hinge_share")].item()) == (0.0, 0.0)
        assert student.table.grad.abs().max().item() == 0.0


def test_skip_shared_tokens_drops_copies_of_positives_and_counts_them():
    rationales = (
        Rationale([5, 6, 7, 1], True, 0.9),
        Rationale([5, 6, 7, 1], False, 0.1),
        Rationale([5, 6, 8, 1], False, 0.1),
        Rationale([5, 6], False, 0.1),
    )
    (kept, alone), num_copies = skip_shared_tokens(
        [Example("a", [3], [4], [9], rationales), Example("b", [3], [4], [9], rationales[1:2])]
    )
    assert [(r.ids, r.first) for r in kept.rationales] == [([5, 6, 7, 1], 0), ([5, 6, 8, 1], 2)]
    assert [r.first for r in alone.rationales] == [0]
    assert num_copies == 2


def test_pairwise_without_positive_pushes_nothing():
    examples = make_examples(seed=5, counts=[(0, 3), (0, 1)])
    student = TableStudent(examples, seed=5)
    loss = LossSection(neg_loss="pairwise", alpha_label=0.0)
    total, _ = QcrdObjective(student, loss, max_buckets=2)(collate(examples, 0, 1))
    assert total.item() == 0.0


def test_draws_are_a_function_of_seed_and_step_and_reach_every_rationale():
    assert batch_draws(4, 7, seed=1) == batch_draws(4, 7, seed=1)
    assert batch_draws(4, 7, seed=1) != batch_draws(4, 8, seed=1)
    assert batch_draws(4, 7, seed=1) != batch_draws(4, 7, seed=2)
    draws = [row for step in range(100) for row in batch_draws(4, step, seed=0)]
    for side in (0, 1):
        counts = torch.bincount(torch.tensor([int(3 * row[side]) for row in draws]))
        assert counts.min() > 100
