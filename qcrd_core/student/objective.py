"""The training step of QCRD as one module: batch in, loss and its parts out.

DeepSpeed wants all passes of a step inside one `forward` with one backward. Inside:

1. read every question once (predict and explain prompt),
2. score all rationales **without gradient** and choose one positive and one negative a question,
3. score only the chosen ones, and the label, with gradient.

Step 3 has the same gradient as differentiating through the choice among all of them, because
minimum and maximum pass their gradient to the chosen one alone.
"""

import torch
from torch import Tensor, nn

from qcrd_core.config_method import LossSection
from qcrd_core.losses import (
    choose_negative,
    choose_positive,
    contrastive_loss,
    distillation_loss,
    negative_loss,
    positive_loss,
)
from qcrd_core.student.batches import Batch
from qcrd_core.student.model import Context, Student

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

    def __init__(self, student: Student, loss: LossSection, *, num_buckets: int) -> None:
        """Keep the student and the loss's weights.

        Args:
            student: The model to train.
            loss: Weights and margin.
            num_buckets: Length buckets of the pass without gradient; 1 under ZeRO-3, whose ranks
                must make equally many passes.
        """
        super().__init__()
        self.student = student
        self.loss = loss
        self.num_buckets = num_buckets

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Compute the loss of a micro-batch.

        Args:
            batch: B questions.

        Returns:
            The scalar loss, and its detached parts in the order of `PARTS`, [5].
        """
        num_questions = batch.label_ids.shape[0]
        context = self.student.read(batch.prompt_ids, batch.prompt_mask)
        predict = torch.arange(num_questions, device=batch.label_ids.device)
        label = self.student.nll(context, predict, batch.label_ids, batch.label_mask).mean()
        positive, negative = self._choose(context, batch)
        rows = torch.cat([positive, negative])
        nll = self.student.nll(
            context,
            num_questions + batch.question[rows],
            batch.rationale_ids[rows],
            batch.rationale_mask[rows],
            num_buckets=self.num_buckets,
        )
        has_positive = (batch.positive >= 0).any(dim=1)
        has_negative = (batch.negative >= 0).any(dim=1)
        score = batch.score[rows]
        pull = positive_loss(nll[:num_questions], score[:num_questions]) * has_positive
        push = (
            negative_loss(nll[num_questions:], score[num_questions:], self.loss.delta)
            * has_negative
        )
        total = distillation_loss(
            label,
            contrastive_loss(pull, push, self.loss.beta),
            alpha_label=self.loss.alpha_label,
            alpha_contrastive=self.loss.alpha_contrastive,
        )
        active = (has_negative & (nll[num_questions:] < self.loss.delta)).float().mean()
        parts = torch.stack([total, label, pull.mean(), push.mean(), active]).detach()
        return total, parts

    @torch.no_grad()
    def _choose(self, context: Context, batch: Batch) -> tuple[Tensor, Tensor]:
        if max(batch.positive.shape[1], batch.negative.shape[1]) == 1 and self.num_buckets > 1:
            return batch.positive[:, 0].clamp(min=0), batch.negative[:, 0].clamp(min=0)
        nll = self.student.nll(
            context,
            batch.label_ids.shape[0] + batch.question,
            batch.rationale_ids,
            batch.rationale_mask,
            num_buckets=self.num_buckets,
        )
        chosen = []
        for slots, choose in (
            (batch.positive, choose_positive),
            (batch.negative, choose_negative),
        ):
            index = choose(nll[slots.clamp(min=0)], slots >= 0)
            chosen.append(slots.gather(1, index[:, None])[:, 0].clamp(min=0))
        return chosen[0], chosen[1]
