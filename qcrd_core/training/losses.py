"""The losses of QCRD (Wang et al., EMNLP 2025, arXiv 2405.13014), one small function each.

    equation 2  quality_ratio      L_D; figure 2c: quality_bce, the default; ours: quality_infonce
    equation 3  contrastive_loss   L_cl = mean(l_pos - beta l_neg)
    equation 6  choose_min         the minimum over S_pos
                positive_loss      l_pos = s CE
    equation 7  choose_max         the maximum over S_neg
                negative_loss      l_neg = (1 - s) min(CE - delta, 0)
    equation 8  distillation_loss  L = a1 L_pred + a2 L_cl
    table 5     choose_*           one rationale per question
                *_weights          all of them

Equation 1, s = D(x, r), is `qcrd_core.discriminator.model`.

Shape letters: B questions in the micro-batch, P positives and N negatives per question (functions
for both polarities say P), S rationales of a batch of the discriminator, Q questions of those.
CE(r | x) is always the token mean over one sequence, in nats: the margin of 3 nats and the choice
of one rationale per question have no meaning for sums.

Which rationales count: `choose_*` take one per question, which alone is back-propagated,
`*_weights` take all. Either way l_pos = sum_j w_j s_j CE_j and
l_neg = sum_j w_j (1 - s_j) min(CE_j - delta, 0) with constant w_j that sum to 1; for one rationale
these are equations 6 and 7.

Doubt: equation 7 as printed has no margin; the margin delta, its value and beta come from the
authors' answers in the public review of the paper.
"""

from collections.abc import Sequence
from itertools import compress, count

import torch
from torch import Tensor
from torch.nn import functional


def choose_min(nll: Tensor, mask: Tensor) -> Tensor:
    """Choose the rationale with the smallest CE: the easiest positive, the hardest negative.

    Args:
        nll: CE of each rationale of one polarity, [B, P], nats.
        mask: True where a rationale exists, [B, P].

    Returns:
        Index into P, [B]; arbitrary where a question has none.

    Source:
        Equation 6, the minimum over S_pos; table 5 for S_neg.
    """
    # An index has no gradient and needs none: a minimum passes its gradient to the chosen rationale
    # alone, which is then scored again. Infinity is never the minimum.
    return nll.masked_fill(~mask, torch.inf).argmin(dim=1)  # [B, P] -> [B]


def choose_max(nll: Tensor, mask: Tensor) -> Tensor:
    """Choose the rationale with the largest CE: the easiest negative, the hardest positive.

    Args:
        nll: CE of each rationale of one polarity, [B, N], nats.
        mask: True where a rationale exists, [B, N].

    Returns:
        Index into N, [B]; arbitrary where a question has none.

    Source:
        Equation 7: the maximum of min(CE - delta, 0) over S_neg is that of CE. It is the *easiest*
        negative: the hinge is 0 as soon as one negative is past the margin. Table 5 for S_pos.
    """
    # Compared without the hinge, for which all negatives beyond the margin would be equal.
    return nll.masked_fill(~mask, -torch.inf).argmax(dim=1)  # [B, N] -> [B]


def choose_sample(mask: Tensor, draw: Tensor) -> Tensor:
    """Choose one rationale, each with equal chance.

    Args:
        mask: True where a rationale exists, [B, P].
        draw: Random numbers in [0, 1), [B].

    Returns:
        Index into P, [B]; arbitrary where a question has none.

    Source:
        Table 5, "sampling". Doubt: whether quality weighs the chance; here it does not.
    """
    # The draws come from outside, so that a resumed run chooses the same. Slots may have gaps:
    # counting finds the first one with more than `rank` rationales up to it.
    rank = (draw * mask.sum(dim=1)).long()  # [B], in [0, number of rationales)
    return (mask.cumsum(dim=1) > rank[:, None]).int().argmax(dim=1)  # [B, P] -> [B]


def mean_weights(mask: Tensor) -> Tensor:
    """Weigh all rationales of a question equally.

    Args:
        mask: True where a rationale exists, [B, P].

    Returns:
        Weights, [B, P], float32; a row sums to 1, or to 0 where a question has none.

    Source:
        Table 5, "mean": l_pos is the mean of s_j CE_j, and l_neg that of its terms.
    """
    # Clamped, so that a question without rationales has weights 0 instead of 0 / 0.
    return mask / mask.sum(dim=1, keepdim=True).clamp(min=1)


def quality_weights(quality: Tensor, mask: Tensor) -> Tensor:
    """Weigh the rationales of a question by their quality as what they are.

    Args:
        quality: s of a positive, 1 - s of a negative, [B, P], in [0, 1]; detached here.
        mask: True where a rationale exists, [B, P].

    Returns:
        Weights, [B, P]; a row sums to 1, or to 0 where all quality is 0 or a question has none.

    Source:
        Table 5, "weighted mean". Doubt: the paper names no weights. s stays in l_pos too, so a
        question whose rationales are all poor counts less, as in equation 6.
    """
    # Detached, or the student's loss would train the weights. The smallest number stands in for a
    # sum of 0, so that worthless rationales have weights 0 instead of 0 / 0.
    kept = quality.detach() * mask  # [B, P]
    total = kept.sum(dim=1, keepdim=True)  # [B, 1]
    return kept / total.clamp(min=torch.finfo(kept.dtype).tiny)


def softmin_weights(nll: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """Weigh the rationales of a question by softmax(-CE / temperature).

    Constants to the gradient, so that the pull is that of the smooth minimum
    -temperature log mean_j exp(-CE_j / temperature): no rationale is ever pushed away.

    Args:
        nll: CE of each rationale, [B, P], nats; detached here.
        mask: True where a rationale exists, [B, P].
        temperature: > 0, nats; near 0 it is the minimum, large it is the mean.

    Returns:
        Weights, [B, P]; a row sums to 1, or to 0 where a question has none.

    Source:
        Ours: equation 6 without its winner taking all.
    """
    # The lowest finite number instead of -inf: a row of -inf alone has a softmax of NaN.
    scaled = (-nll.detach() / temperature).masked_fill(~mask, torch.finfo(nll.dtype).min)
    return scaled.softmax(dim=1) * mask  # [B, P]


def positive_loss(nll: Tensor, weight: Tensor) -> Tensor:
    """Pull the student to a chosen positive, l_pos = s CE(r | x).

    Args:
        nll: CE of the chosen positives, any shape, nats.
        weight: s = D(x, r) of each, in [0, 1], or scaled to a mean of 1.

    Returns:
        l_pos of each, same shape.

    Source:
        Equation 6. s is detached: with a gradient the loss is minimised by s = 0.
    """
    # A positive of poor quality is followed less: s is only a weight.
    return weight.detach() * nll


def negative_loss(nll: Tensor, weight: Tensor, delta: float) -> Tensor:
    """Push the student off a chosen negative, l_neg = (1 - s) min(CE(r | x) - delta, 0).

    Args:
        nll: CE of the chosen negatives, any shape, nats.
        weight: 1 - s of each, in [0, 1], or scaled to a mean of 1.
        delta: Margin above which a negative is left alone, > 0, nats.

    Returns:
        l_neg of each, same shape, never positive; exactly 0 beyond the margin.

    Source:
        Equation 7. s is detached.
    """
    # min(., 0) stops the push at the margin: an ever less likely negative would teach nothing more,
    # and -CE alone has no lower bound.
    return weight.detach() * (nll - delta).clamp(max=0)


def softplus_negative_loss(nll: Tensor, weight: Tensor, delta: float, sharpness: float) -> Tensor:
    """Push like the hinge but smoothly, l_neg = -(1 - s) softplus(b (delta - CE)) / b.

    Args:
        nll: CE of the chosen negatives, any shape, nats.
        weight: 1 - s of each, in [0, 1], or scaled to a mean of 1.
        delta: Margin at which the push has half its strength, > 0, nats.
        sharpness: b, > 0, per nat; large, it is the hinge.

    Returns:
        l_neg of each, same shape, negative everywhere.

    Source:
        Ours: equation 7 without the corner. s is detached.
    """
    # Divided by b, so that the slope far below the margin is 1, as the hinge's.
    return -weight.detach() * functional.softplus(sharpness * (delta - nll)) / sharpness


def pairwise_negative_loss(
    nll: Tensor, positive_nll: Tensor, weight: Tensor, *, delta: float, sharpness: float
) -> Tensor:
    """Push a negative away from the positive, -(1 - s) softplus(-(b (CE_neg - CE_pos) - m)) / b.

    The gradient reaches both: a negative that is all but the positive cannot drag it along, for
    only their distance counts.

    Args:
        nll: CE_neg of the chosen negatives, [B, N], nats.
        positive_nll: CE_pos of each question, [B], nats.
        weight: 1 - s of each negative, [B, N].
        delta: Distance at which the push has half its strength, nats; m = b delta.
        sharpness: b, > 0, per nat.

    Returns:
        l_neg of each, [B, N], negative everywhere.

    Source:
        Ours; Bradley-Terry on token means. s is detached.
    """
    # [B, N] - [B, 1]: each negative is compared with the positive of its question.
    return softplus_negative_loss(nll - positive_nll[:, None], weight, delta, sharpness)


def first_divergence(negative: Sequence[int], positives: Sequence[Sequence[int]]) -> int:
    """Find where a negative leaves the positive that it follows longest.

    Args:
        negative: Token ids.
        positives: Token ids of the question's positives.

    Returns:
        Index of the first token that counts in the negative's CE, so that the right beginning of a
        wrong rationale is not pushed down: 0 without positives, all its length for a copy of one.

    Source:
        Ours.
    """
    shared = 0
    for positive in positives:
        # If none of the compared tokens differs, the shorter of the two begins the longer.
        differing = (a != b for a, b in zip(negative, positive, strict=False))
        shared = max(shared, next(compress(count(), differing), min(len(negative), len(positive))))
    return shared


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
    # l_neg is never positive, so both terms are costs. The mean is over all questions: one without
    # negatives counts with 0 instead of raising the weight of the others.
    return (positive - beta * negative).mean()  # [B] -> scalar


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
    # The label keeps its own term, because inference asks for it alone, without a rationale.
    return alpha_label * label + alpha_contrastive * contrastive


def quality_bce(logits: Tensor, is_positive: Tensor) -> Tensor:
    """L_D as a cross entropy: s is the probability that a rationale is a positive.

    Args:
        logits: Of the rationales of a batch, half of them positive, [S]; s is their sigmoid.
        is_positive: [S], bool.

    Returns:
        Scalar, nats.

    Source:
        Figure 2c, which draws L_D as a cross entropy, in place of equation 2.
    """
    # On logits: log(sigmoid) of a large negative logit would be log(0).
    return functional.binary_cross_entropy_with_logits(logits, is_positive.to(logits.dtype))


def quality_ratio(logits: Tensor, is_positive: Tensor, question: Tensor) -> Tensor:
    """L_D as printed, the mean over questions of -log( sum_j exp s_pos,j / sum_j exp s_neg,j ).

    Args:
        logits: Of the rationales of a batch, [S]; s is their sigmoid.
        is_positive: [S], bool; each question has both kinds.
        question: Which question a rationale belongs to, [S], any numbers.

    Returns:
        Scalar, nats; with as many positives as negatives it lies in (-1, 1).

    Source:
        Equation 2. On logits it would have no lower bound, so s is taken in (0, 1), as equation 1
        has it.
    """
    score = logits.sigmoid()  # [S]
    # The logarithm of a ratio as a difference of logarithms.
    positive = _log_sum_exp(score, is_positive, question)  # [Q]
    negative = _log_sum_exp(score, ~is_positive, question)  # [Q]
    return (negative - positive).mean()


def quality_infonce(logits: Tensor, is_positive: Tensor, question: Tensor) -> Tensor:
    """L_D with positives below the line too, the mean of -log( e_pos / (e_pos + e_neg) ).

    The mean is over questions; e_pos is the sum of exp z_j over a question's positives, and so on.

    Args:
        logits: z of the rationales of a batch, [S]; only their differences within a question count,
            so nothing ties the sigmoid of one question to that of another.
        is_positive: [S], bool; each question has both kinds.
        question: Which question a rationale belongs to, [S], any numbers.

    Returns:
        Scalar, nats, > 0.

    Source:
        Ours: the contrastive loss that equation 2 resembles (van den Oord et al., 2018), with
        several positives.
    """
    positive = _log_sum_exp(logits, is_positive, question)  # [Q]
    negative = _log_sum_exp(logits, ~is_positive, question)  # [Q]
    # logaddexp is log(e_pos + e_neg) without computing either, which may overflow.
    return (torch.logaddexp(positive, negative) - positive).mean()


def _log_sum_exp(values: Tensor, mask: Tensor, question: Tensor) -> Tensor:
    """Take log sum_j exp v_j over the masked values of each question, [Q]."""
    member = (question == question.unique()[:, None]) & mask  # [Q, S]
    # exp(-inf) = 0: what is not a member adds nothing.
    return values.masked_fill(~member, -torch.inf).logsumexp(dim=1)  # [S] -> [Q, S] -> [Q]
