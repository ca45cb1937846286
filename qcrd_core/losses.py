"""The losses of QCRD (Wang et al., EMNLP 2025, arXiv 2405.13014), one small function each.

Shape letters: B questions in the micro-batch, P positives and N negatives a question.
CE(r | x) is always the token mean over one sequence, in nats: the margin of 3 nats and the choice
of one rationale a question have no meaning for sums.

Doubt: equation 7 as printed has no margin; the margin delta, its value and beta come from the
authors' answers in the public review of the paper.
"""

import torch
from torch import Tensor
from torch.nn import functional


def token_mean_nll(logits: Tensor, targets: Tensor, sequence: Tensor, num_sequences: int) -> Tensor:
    """Average the cross entropy over the tokens of each sequence.

    Args:
        logits: Scores of all real tokens, padding left out, [T, V].
        targets: Token ids, [T].
        sequence: Which sequence a token belongs to, [T], in [0, num_sequences).
        num_sequences: S.

    Returns:
        Mean cross entropy of each sequence, [S], float32, nats; 0 for one without tokens.

    Source:
        CE of equations 6 and 7; token mean instead of sum is this project's reading.
    """
    nll = functional.cross_entropy(logits.float(), targets, reduction="none")
    total = nll.new_zeros(num_sequences).index_add(0, sequence, nll)
    count = torch.bincount(sequence, minlength=num_sequences)
    return total / count.clamp(min=1)


def choose_positive(positive_nll: Tensor, positive_mask: Tensor) -> Tensor:
    """Choose the easiest positive, r = argmin CE(r | x).

    Args:
        positive_nll: [B, P], nats.
        positive_mask: True where a positive exists, [B, P].

    Returns:
        Index into P, [B]; arbitrary where a question has no positive.

    Source:
        Equation 6, the minimum over S_pos.
    """
    return positive_nll.masked_fill(~positive_mask, torch.inf).argmin(dim=1)


def choose_negative(negative_nll: Tensor, negative_mask: Tensor) -> Tensor:
    """Choose the negative with the largest min(CE - delta, 0), which is the largest CE.

    Args:
        negative_nll: [B, N], nats.
        negative_mask: True where a negative exists, [B, N].

    Returns:
        Index into N, [B]; arbitrary where a question has no negative.

    Source:
        Equation 7, the maximum over S_neg. It is the *easiest* negative: the hinge is 0 as soon
        as one negative is past the margin.
    """
    return negative_nll.masked_fill(~negative_mask, -torch.inf).argmax(dim=1)


def positive_loss(nll: Tensor, quality_score: Tensor) -> Tensor:
    """Pull the student to the chosen positive, l_pos = s CE(r | x).

    Args:
        nll: CE of the chosen positive, [B], nats.
        quality_score: s = D(x, r) of the chosen positive, [B], in [0, 1].

    Returns:
        l_pos of each question, [B].

    Source:
        Equation 6. s is detached: with a gradient the loss is minimised by s = 0.
    """
    return quality_score.detach() * nll


def negative_loss(nll: Tensor, quality_score: Tensor, delta: float) -> Tensor:
    """Push the student off the chosen negative, l_neg = (1 - s) min(CE(r | x) - delta, 0).

    Args:
        nll: CE of the chosen negative, [B], nats.
        quality_score: s = D(x, r) of the chosen negative, [B], in [0, 1].
        delta: Margin above which a negative is left alone, > 0, nats.

    Returns:
        l_neg of each question, [B], never positive; exactly 0 beyond the margin.

    Source:
        Equation 7. s is detached.
    """
    return (1 - quality_score.detach()) * (nll - delta).clamp(max=0)


def contrastive_loss(positive: Tensor, negative: Tensor, beta: float) -> Tensor:
    """L_cl = mean over questions of l_pos - beta l_neg.

    Args:
        positive: l_pos, [B]; 0 for a question without positives.
        negative: l_neg, [B]; 0 for a question without negatives.
        beta: Weight of the negative term, >= 0.

    Returns:
        Scalar.

    Source:
        Equation 3.
    """
    return (positive - beta * negative).mean()


def distillation_loss(
    label: Tensor, contrastive: Tensor, *, alpha_label: float, alpha_contrastive: float
) -> Tensor:
    """L = a1 L_pred + a2 L_cl, the student's part of the total loss.

    Args:
        label: L_pred, mean CE of the label under the predict prefix, scalar.
        contrastive: L_cl, scalar.
        alpha_label: a1.
        alpha_contrastive: a2.

    Returns:
        Scalar.

    Source:
        Equation 8. The discriminator shares no weights with the student, so a3 L_D is minimised
        by its own optimiser (`qcrd_core.discriminator`).
    """
    return alpha_label * label + alpha_contrastive * contrastive
