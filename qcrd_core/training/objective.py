"""The training step of QCRD as one module: batch in, loss and its parts out.

DeepSpeed wants all passes of a step inside one `forward` with one backward. Inside:

1. read every question once (predict and explain prompt),
2. score all rationales **without gradient** and choose one positive and one negative a question,
3. score only the chosen ones, and the label, with gradient.

Step 3 has the same gradient as differentiating through the choice among all of them, because
minimum and maximum pass their gradient to the chosen one alone. A random choice needs no step 2,
and neither do the options that weigh all rationales: they take all of them to step 3.
"""

from typing import Literal

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
    mutual_information_loss,
    negative_loss,
    pairwise_negative_loss,
    positive_loss,
    quality_weights,
    softmin_weights,
    softplus_negative_loss,
)

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
        num_questions = batch.label_ids.shape[0]
        num_prompts = num_questions * (2 if self.loss.reads_rationales else 1)
        context = self.student.read(
            batch.prompt_ids[:num_prompts],
            batch.prompt_mask[:num_prompts],
            max_buckets=self.max_buckets,
        )
        if self.loss.reads_rationales:
            label_nll, pull, push, active, mutual = self._all_terms(context, batch)
        else:
            label_nll, _ = self._score(context, batch, batch.question[:0])
            pull = push = active = mutual = torch.zeros_like(label_nll)
        label = label_nll.mean()
        total = distillation_loss(
            label,
            contrastive_loss(pull, push, self.loss.beta),
            alpha_label=self.loss.alpha_label,
            alpha_contrastive=self.loss.alpha_contrastive,
        )
        total = total + self.loss.beta_mutual_information * mutual.mean()
        means = [term.mean() for term in (pull, push, active)]
        return total, torch.stack([total, label, *means]).detach()

    def _all_terms(self, context: Context, batch: Batch) -> tuple[Tensor, ...]:
        """CE of the label, l_pos, l_neg, whether the hinge is active, MI: [B] each."""
        positive, negative = self._keep(context, batch)
        wanted = [slots >= 0 for slots in (positive, negative)]
        wanted[0][0, 0] = True  # a stand-in if there is none at all: ZeRO-3's ranks pass as often
        rows = torch.cat([positive[wanted[0]], negative[wanted[1]]]).clamp(min=0)
        peaks = None
        if self.loss.beta_mutual_information:
            label_nll, nll, peaks = self._score_and_peaks(context, batch, rows)
        else:
            label_nll, nll = self._score(context, batch, rows)
        split = [int(mask.sum()) for mask in wanted]
        positive_nll, negative_nll = (
            values.new_zeros(mask.shape).masked_scatter(mask, values)
            for values, mask in zip(nll.split(split), wanted, strict=True)
        )
        terms = self._terms(batch, (positive, positive_nll), (negative, negative_nll))
        mutual = torch.zeros_like(label_nll)
        if peaks is not None:
            known = positive[:, 0] >= 0
            values = mutual_information_loss(
                peaks[1][: split[0]][known[wanted[0][:, 0]]], peaks[0][known]
            )
            mutual = mutual.masked_scatter(known, values)
        return label_nll, *terms, mutual

    def _score(self, context: Context, batch: Batch, rows: Tensor) -> tuple[Tensor, Tensor]:
        """CE of each label, [B], and of some rationales, [R], in the same passes."""
        num_questions = batch.label_ids.shape[0]
        ids = _below(batch.label_ids, batch.rationale_ids[rows])
        mask = _below(batch.label_mask, batch.rationale_mask[rows])
        labels = torch.arange(num_questions, device=rows.device)
        nll = self.student.nll(
            context,
            torch.cat([labels, num_questions + batch.question[rows]]),
            ids,
            mask,
            torch.cat([torch.zeros_like(labels), batch.first[rows]]),
            max_buckets=self.max_buckets,
        )
        return nll[:num_questions], nll[num_questions:]

    def _score_and_peaks(
        self, context: Context, batch: Batch, rows: Tensor
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """As `_score`, and how likely each word is in the label and in the rationale, [.., V].

        Padding counts among the positions, so labels and rationales are not padded together.
        """
        num_questions = batch.label_ids.shape[0]
        labels = torch.arange(num_questions, device=rows.device)
        label = self.student.nll_and_peak(context, labels, batch.label_ids, batch.label_mask)
        rationale = self.student.nll_and_peak(
            context,
            num_questions + batch.question[rows],
            batch.rationale_ids[rows],
            batch.rationale_mask[rows],
        )
        return label[0], rationale[0], (label[1], rationale[1])

    def _terms(
        self, batch: Batch, positive: tuple[Tensor, Tensor], negative: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """l_pos, l_neg and the share of active hinges of each question, [B], from kept slots."""
        (slots, nll), loss = positive, self.loss
        mask, score = slots >= 0, batch.score[slots.clamp(min=0)]
        weights = mean_weights(mask)
        if loss.pos_select == "weighted":
            weights = quality_weights(score, mask)
        elif loss.pos_select == "softmin":
            weights = softmin_weights(nll, mask, loss.softmin_temperature)
        pull = (weights * positive_loss(nll, score)).sum(dim=1)
        positive_nll, has_positive = (weights * nll).sum(dim=1), weights.sum(dim=1) > 0

        slots, nll = negative
        mask, score = slots >= 0, batch.score[slots.clamp(min=0)]
        if loss.neg_loss == "pairwise":
            mask = mask & has_positive[:, None]
        weights = mean_weights(mask)
        if loss.neg_select == "weighted":
            weights = quality_weights(1 - score, mask)
        push = self._push(nll, positive_nll, score)
        reached = nll - positive_nll[:, None] if loss.neg_loss == "pairwise" else nll
        active = weights * (reached < loss.delta)
        return pull, (weights * push).sum(dim=1), active.sum(dim=1)

    def _push(self, nll: Tensor, positive_nll: Tensor, score: Tensor) -> Tensor:
        """l_neg of each kept negative, [B, N]."""
        loss = self.loss
        if loss.neg_loss == "softplus":
            return softplus_negative_loss(nll, score, loss.delta, _SHARPNESS)
        if loss.neg_loss == "pairwise":
            return pairwise_negative_loss(
                nll, positive_nll, score, delta=loss.delta, sharpness=_SHARPNESS
            )
        return negative_loss(nll, score, loss.delta)

    @torch.no_grad()
    def _keep(self, context: Context, batch: Batch) -> list[Tensor]:
        """Rationale indices that are scored with gradient, [B, 1] where one is chosen."""
        sides = (
            (batch.positive, self.loss.pos_select, batch.draw[:, 0]),
            (
                batch.negative if self.loss.beta else batch.negative[:, :0],
                self.loss.neg_select,
                batch.draw[:, 1],
            ),
        )
        by_nll = [slots for slots, select, _ in sides if select in {"min", "max"} and slots.numel()]
        nll = None
        if by_nll and (self.max_buckets == 1 or max(slots.shape[1] for slots in by_nll) > 1):
            nll = self.student.nll(
                context,
                batch.label_ids.shape[0] + batch.question,
                batch.rationale_ids,
                batch.rationale_mask,
                batch.first,
                max_buckets=self.max_buckets,
            )
        return [_kept(slots, select, nll, draw) for slots, select, draw in sides]


def _below(first: Tensor, second: Tensor) -> Tensor:
    """Rows of two tensors, padded with 0 on the right to one width."""
    width = max(first.shape[1], second.shape[1]) if len(second) else first.shape[1]
    parts = [part[:, :width] for part in (first, second)]
    return torch.cat([pad(part, (0, width - part.shape[1])) for part in parts])


def _kept(
    slots: Tensor,
    select: Literal["min", "max", "mean", "weighted", "sample", "softmin"],
    nll: Tensor | None,
    draw: Tensor,
) -> Tensor:
    mask = slots >= 0
    if not slots.numel():
        return slots
    if select == "sample":
        index = choose_sample(mask, draw)
    elif select in {"min", "max"} and nll is not None:
        choose = choose_min if select == "min" else choose_max
        index = choose(nll[slots.clamp(min=0)], mask)
    else:
        return slots
    return slots.gather(1, index[:, None])
