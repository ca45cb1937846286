"""The baseline MI (Chen et al., 2024, arXiv 2403.03348): one more term between label and rationale.

It shares nothing with QCRD but the student and the batch, and counts padding among the positions as
its released code does. So it scores targets by itself: unsplit by length, and labels and rationales
not padded together.

Shape letters: B questions in the micro-batch, R rationales in it, K rationales to score,
V vocabulary.
"""

import torch
from torch import Tensor
from torch.nn import functional

from qcrd_core.student.model import Context, Student
from qcrd_core.training.batches import Batch


def mutual_information_loss(rationale_peak: Tensor, label_peak: Tensor) -> Tensor:
    """Draw what the explain task and the predict task say together, as released for MI.

    Args:
        rationale_peak: e, the largest probability of each word over the positions of the rationale,
            padding included, [B, V].
        label_peak: p, the same of the label, [B, V]; detached here.

    Returns:
        -sum_v p_v log softmax(e)_v of each question, [B], nats.

    Source:
        Chen et al. (2024), arXiv 2403.03348, their released code: a cross entropy that takes the
        probabilities e for logits, so that softmax is applied twice, and p, which sums to more than
        1, for the target.
    """
    # Only the rationale moves: the label is the target of its pull.
    return functional.cross_entropy(rationale_peak, label_peak.detach(), reduction="none")


def score_with_mutual_information(
    student: Student,
    context: Context,
    batch: Batch,
    rows: Tensor,
    positive: Tensor,
    *,
    max_buckets: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Score labels and rationales, and compute the MI term of each question's positive.

    Args:
        student: The model.
        context: What it has read: B predict prompts, then B explain prompts.
        batch: The micro-batch.
        rows: Rationales to score, [K], in [0, R): that of question 0 (a stand-in if it has no
            positive), those of the further questions with a positive, then negatives.
        positive: Each question's positive, [B, 1], in [0, R); -1 where there is none.
        max_buckets: Not needed here: one pass each for labels and rationales.

    Returns:
        CE of each label, [B], and of each of the rationales, [K], nats; and the MI term, [B],
        nats, 0 for a question without positives.
    """
    del max_buckets
    num_questions = batch.label_ids.shape[0]
    labels = torch.arange(num_questions, device=rows.device)  # [B], predict prompts
    label_nll, label_peak = student.nll_and_peak(  # [B], [B, V]
        context, labels, batch.label_ids, batch.label_mask
    )
    nll, peak = student.nll_and_peak(  # [K], [K, V]
        context,
        num_questions + batch.question[rows],  # [K], explain prompts
        batch.rationale_ids[rows],
        batch.rationale_mask[rows],
    )
    has_positive = positive[:, 0] >= 0  # [B]
    # Row 0 is taken by question 0, and each further positive has the row after the one before it.
    place = torch.cat([labels[:1], has_positive[1:].cumsum(dim=0)])  # [B], in [0, K)
    mutual = mutual_information_loss(peak[place], label_peak) * has_positive  # [B, V] -> [B]
    return label_nll, nll, mutual
