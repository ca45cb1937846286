"""The student's loss as a loop over questions and rationales, written from the equations alone.

It shares no code with `qcrd_core.training.losses` and knows no batches, masks or choices without
gradient.
"""

import math
import random

import torch

from qcrd_core.training.batches import Example, Rationale

COUNTS = [(0, 0), (1, 0), (0, 1), (1, 1), (3, 2), (2, 0), (0, 3), (5, 1)]
"""Positives and negatives of the examples: none, one, many, of each and of both."""


def make_examples(seed=0, counts=COUNTS, longest=12):
    source = random.Random(seed)

    def tokens(most):
        return [source.randint(3, 199) for _ in range(source.randint(1, most))]

    def rationales(num_positives, num_negatives):
        kinds = [True] * num_positives + [False] * num_negatives
        source.shuffle(kinds)
        made = [Rationale(tokens(longest), kind, source.random()) for kind in kinds]
        # Half of the negatives begin like a positive, so that there is a first divergence to find.
        starts = [r.ids for r in made if r.is_positive]
        for r in made:
            if starts and not r.is_positive and source.random() < 0.5:
                start = source.choice(starts)
                r.ids[:0] = start[: source.randint(1, len(start))]
        return tuple(made)

    return [
        Example(str(i), tokens(9), tokens(9), tokens(3), rationales(*pair))
        for i, pair in enumerate(counts)
    ]


def make_draws(num_questions, seed=0):
    source = random.Random(seed)
    return [[source.random(), source.random()] for _ in range(num_questions)]


def slow_loss(nll, examples, loss, draws):
    """Equations 3, 6, 7 and 8; `nll(prompt_ids, target_ids, first)` is CE, a scalar tensor."""
    label = contrastive = torch.tensor(0.0)
    for e, draw in zip(examples, draws, strict=True):
        label = label + nll(e.predict_ids, e.label_ids, 0)
        good = [r for r in e.rationales if r.is_positive]
        bad = [(r, _start(r, good, loss)) for r in e.rationales if not r.is_positive]
        positives = [(nll(e.explain_ids, r.ids, 0), r.weight) for r in good]
        negatives = [
            (nll(e.explain_ids, r.ids, start), r.weight) for r, start in bad if start < len(r.ids)
        ]
        anchor = torch.tensor(0.0)
        for w, ce, s in _taken(positives, loss.pos_select, draw[0], loss.softmin_temperature):
            contrastive = contrastive + w * s * ce
            anchor = anchor + w * ce
        for w, ce, poor in _taken(negatives, loss.neg_select, draw[1], None):
            if loss.neg_loss != "pairwise" or positives:
                contrastive = contrastive + loss.beta * w * poor * _push(ce, anchor, loss)
    count = len(examples)
    return loss.alpha_label * label / count + loss.alpha_contrastive * contrastive / count


def _start(negative, positives, loss):
    """First token of a negative that counts."""
    if loss.neg_tokens == "all":
        return 0
    start = 0
    while any(negative.ids[: start + 1] == p.ids[: start + 1] for p in positives):
        if start == len(negative.ids):
            break
        start += 1
    return start


def _push(ce, anchor, loss):
    """What a negative with this CE costs, >= 0."""
    if loss.neg_loss == "softplus":
        return torch.log(1 + torch.exp(loss.delta - ce))
    if loss.neg_loss == "pairwise":
        return torch.log(1 + torch.exp(-(ce - anchor - loss.delta)))
    return -torch.minimum(ce - loss.delta, torch.tensor(0.0))


def _taken(rationales, select, draw, temperature):
    """(weight, CE, quality) of the rationales that count."""
    if not rationales:
        return []
    if select == "min":
        return [(1.0, *min(rationales, key=lambda item: item[0].item()))]
    if select == "max":
        return [(1.0, *max(rationales, key=lambda item: item[0].item()))]
    if select == "sample":
        return [(1.0, *rationales[math.floor(draw * len(rationales))])]
    if select == "mean":
        raw = [1.0] * len(rationales)
    elif select == "weighted":
        raw = [s for _, s in rationales]
    else:
        raw = [math.exp(-ce.item() / temperature) for ce, _ in rationales]
    return [(w / sum(raw), ce, s) for w, (ce, s) in zip(raw, rationales, strict=True)]
