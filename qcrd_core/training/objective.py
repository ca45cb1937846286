"""The training step of QCRD as one module: batch in, loss and its parts out.

DeepSpeed wants all passes of a step inside one `forward` with one backward. Inside:

1. read every question once (predict and explain prompt),
2. score all rationales **without gradient** and choose one positive and one negative per question,
3. score only the chosen ones, and the label, with gradient,
4. combine the scores by equations 6, 7, 3 and 8.

Step 3 has the same gradient as differentiating through the choice among all of them, because
minimum and maximum pass their gradient to the chosen one alone. A random choice needs no step 2,
and neither do the options that weigh all rationales: they take all of them to step 3.

Shape letters: B questions in the micro-batch, R rationales in it, P positives and N negatives per
question (1 where one is chosen, 0 where the term is left out), K rationales scored with gradient,
T tokens.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from qcrd_core.config.method import LossSection
from qcrd_core.student.model import Context, Student
from qcrd_core.training.batches import Batch
from qcrd_core.training.losses import (
    choose_max,
    choose_min,
    choose_sample,
    contrastive_loss,
    distillation_loss,
    mean_weights,
    negative_loss,
    pairwise_negative_loss,
    positive_loss,
    quality_weights,
    softmin_weights,
    softplus_negative_loss,
)
from qcrd_core.training.mutual_information import score_with_mutual_information

# b of softplus and pairwise, per nat: the logistic loss as it is usually written.
_SHARPNESS = 1.0

PARTS = (
    "loss",
    "loss_label_nats",
    "loss_positive_nats",
    "loss_negative_nats",
    "active_hinge_share",
)
"""Names of what `forward` returns beside the loss, in order."""


@dataclass(frozen=True)
class Side:
    """The rationales of one polarity that count, scored with gradient."""

    slots: Tensor
    """Index of each among the R of the batch, [B, P]; -1 where there is none."""
    nll: Tensor
    """CE(r | x), [B, P], nats; arbitrary where there is none."""
    weight: Tensor
    """s = D(x, r) of a positive, 1 - s of a negative, [B, P]; arbitrary where there is none."""

    @property
    def mask(self) -> Tensor:
        """True where a rationale exists, [B, P]."""
        return self.slots >= 0


class QcrdObjective(nn.Module):
    """L of equation 8 for a student."""

    def __init__(self, student: Student, loss: LossSection, *, max_buckets: int) -> None:
        """Keep the student and the loss's weights.

        Args:
            student: The model to train.
            loss: Weights and margin.
            max_buckets: Most length buckets of prompts and of targets; 1 under ZeRO-3, whose ranks
                must make equally many passes.
        """
        super().__init__()
        self.student = student
        self.loss = loss
        self.max_buckets = max_buckets

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Compute the loss of a micro-batch.

        Args:
            batch: B questions.

        Returns:
            The scalar loss, and its detached parts in the order of `PARTS`, [5].
        """
        context = self._read(batch)
        positive_slots, negative_slots = self._choose(context, batch)  # [B, P], [B, N]
        label_nll, positive, negative, mutual = self._score(
            context, batch, positive_slots, negative_slots
        )
        pull, push, active = _terms(positive, negative, self.loss)  # [B] each
        label = label_nll.mean()  # [B] -> scalar
        total = distillation_loss(
            label,
            contrastive_loss(pull, push, self.loss.beta),
            alpha_label=self.loss.alpha_label,
            alpha_contrastive=self.loss.alpha_contrastive,
        )
        total = total + self.loss.beta_mutual_information * mutual.mean()
        means = [term.mean() for term in (pull, push, active)]
        return total, torch.stack([total, label, *means]).detach()  # scalar, [5]

    def _read(self, batch: Batch) -> Context:
        """Step 1: the predict prompts, [B, T], and after them the explain prompts if needed."""
        num_questions = batch.label_ids.shape[0]
        num_prompts = num_questions * (2 if self.loss.reads_rationales else 1)
        return self.student.read(
            batch.prompt_ids[:num_prompts],  # [2B, T], or [B, T] if only labels are learned
            batch.prompt_mask[:num_prompts],
            max_buckets=self.max_buckets,
        )

    @torch.no_grad()
    def _choose(self, context: Context, batch: Batch) -> tuple[Tensor, Tensor]:
        """Step 2: slots of the positives, [B, P], and negatives, [B, N], that count."""
        loss = self.loss
        # A term without weight keeps no slots, [B, 0], so that none of its rationales is scored.
        positive = batch.positive if loss.reads_rationales else batch.positive[:, :0]
        has_push = loss.reads_rationales and loss.beta
        negative = batch.negative if has_push else batch.negative[:, :0]
        sides = ((positive, loss.pos_select), (negative, loss.neg_select))
        by_nll = [slots for slots, select in sides if select in {"min", "max"} and slots.numel()]
        nll = torch.zeros_like(batch.weight)  # [R]
        # If each question has at most one candidate there is nothing to compare. ZeRO-3's ranks
        # (one bucket) compare all the same, because another rank may have more.
        if by_nll and (self.max_buckets == 1 or max(slots.shape[1] for slots in by_nll) > 1):
            nll = self.student.nll(
                context,
                batch.label_ids.shape[0] + batch.question,  # [R], explain prompts
                batch.rationale_ids,
                batch.rationale_mask,
                batch.first,
                max_buckets=self.max_buckets,
            )
        return (
            _chosen(positive, loss.pos_select, nll, batch.draw[:, 0]),
            _chosen(negative, loss.neg_select, nll, batch.draw[:, 1]),
        )

    def _score(
        self, context: Context, batch: Batch, positive: Tensor, negative: Tensor
    ) -> tuple[Tensor, Side, Side, Tensor]:
        """Step 3: CE of the label, [B], both sides, and the term of the MI baseline, [B]."""
        scored = [positive >= 0, negative >= 0]  # [B, P], [B, N]
        # Without any positive a stand-in is scored (its weight is 0), because ZeRO-3's ranks must
        # make equally many passes and one of them would otherwise have no rationale.
        scored[0][:1, :1] = True
        rows = torch.cat([positive[scored[0]], negative[scored[1]]]).clamp(min=0)  # [K]
        has_mutual = self.loss.beta_mutual_information > 0
        score = score_with_mutual_information if has_mutual else _score_together
        label_nll, nll, mutual = score(  # [B], [K], [B]
            self.student, context, batch, rows, positive, max_buckets=self.max_buckets
        )
        nll_of = nll.split([int(mask.sum()) for mask in scored])  # [K] -> positives, negatives
        return (
            label_nll,
            _side(batch, positive, scored[0], nll_of[0]),
            _side(batch, negative, scored[1], nll_of[1]),
            mutual,
        )


def _score_together(
    student: Student,
    context: Context,
    batch: Batch,
    rows: Tensor,
    positive: Tensor,
    *,
    max_buckets: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """CE of labels, [B], and of the rationales `rows`, [K], in the same passes; no term of MI."""
    del positive
    num_questions = batch.label_ids.shape[0]
    labels = torch.arange(num_questions, device=rows.device)  # [B], predict prompts
    nll = student.nll(  # [B + K]
        context,
        torch.cat([labels, num_questions + batch.question[rows]]),  # [B + K], in [0, 2B)
        _below(batch.label_ids, batch.rationale_ids[rows]),  # [B + K, T]
        _below(batch.label_mask, batch.rationale_mask[rows]),  # [B + K, T]
        torch.cat([torch.zeros_like(labels), batch.first[rows]]),  # [B + K]
        max_buckets=max_buckets,
    )
    return nll[:num_questions], nll[num_questions:], torch.zeros_like(nll[:num_questions])


def _terms(positive: Side, negative: Side, loss: LossSection) -> tuple[Tensor, Tensor, Tensor]:
    """Step 4: l_pos, l_neg and the share of active hinges of each question, [B]."""
    weights = _weights(positive, loss.pos_select, loss)  # [B, P]
    # Equation 6, for one chosen positive or a weighted mean of several.
    pull = (weights * positive_loss(positive.nll, positive.weight)).sum(dim=1)  # [B, P] -> [B]
    reached = negative.nll  # [B, N], what is compared with the margin
    if loss.neg_loss == "pairwise":
        # A negative is measured from the question's positive. Without one it pushes nothing.
        positive_nll, has_positive = (weights * positive.nll).sum(dim=1), weights.sum(dim=1) > 0
        slots = negative.slots.masked_fill(~has_positive[:, None], -1)  # [B, N]
        negative = replace(negative, slots=slots)
        reached = negative.nll - positive_nll[:, None]  # [B, N] - [B, 1]
        each = pairwise_negative_loss(
            negative.nll, positive_nll, negative.weight, delta=loss.delta, sharpness=_SHARPNESS
        )
    elif loss.neg_loss == "softplus":
        each = softplus_negative_loss(negative.nll, negative.weight, loss.delta, _SHARPNESS)
    else:
        each = negative_loss(negative.nll, negative.weight, loss.delta)  # [B, N]
    # Equation 7. A good negative is one with a low s, so it is weighed by 1 - s.
    weights = _weights(negative, loss.neg_select, loss)  # [B, N]
    push, active = weights * each, weights * (reached < loss.delta)
    return pull, push.sum(dim=1), active.sum(dim=1)  # [B] each


def _weights(side: Side, select: str, loss: LossSection) -> Tensor:
    """How much each rationale counts, [B, P]; 1 for the only one of a question."""
    if select == "weighted":
        return quality_weights(side.weight, side.mask)
    if select == "softmin":
        return softmin_weights(side.nll, side.mask, loss.softmin_temperature)
    return mean_weights(side.mask)


def _chosen(slots: Tensor, select: str, nll: Tensor, draw: Tensor) -> Tensor:
    """Slots that count: [B, 1] if one is chosen per question, else all, [B, P]."""
    if select not in {"min", "max", "sample"} or not slots.numel():
        return slots
    mask = slots >= 0  # [B, P]
    if select == "sample":
        index = choose_sample(mask, draw)  # [B]
    else:
        choose = choose_min if select == "min" else choose_max
        # A slot of -1 reads rationale 0, which the mask then hides.
        index = choose(nll[slots.clamp(min=0)], mask)  # [R] -> [B, P] -> [B]
    return slots.gather(1, index[:, None])  # [B, 1]


def _side(batch: Batch, slots: Tensor, scored: Tensor, nll: Tensor) -> Side:
    """Put what was scored, a row per True of `scored`, back into its slots."""
    return Side(
        slots,
        nll.new_zeros(slots.shape).masked_scatter(scored, nll),  # -> [B, P]
        batch.weight[slots.clamp(min=0)],  # [R] -> [B, P]
    )


def _below(first: Tensor, second: Tensor) -> Tensor:
    """Rows of two tensors, [B, T] and [K, T'], padded with 0 on the right: [B + K, longer T]."""
    # No rows to add need no width, which [0, T'] still has.
    width = max(first.shape[1], second.shape[1]) if len(second) else first.shape[1]
    parts = [part[:, :width] for part in (first, second)]
    return torch.cat([pad(part, (0, width - part.shape[1])) for part in parts])
