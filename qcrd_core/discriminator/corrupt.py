"""Corrupted positives: cheap negatives that balance the discriminator's classes.

Source: arXiv 2405.13014, section on the discriminator (word masking and word replacement).
"""

import random


def corrupt(
    rationale: str,
    vocabulary: list[str],
    *,
    mask: str,
    mask_fraction: float,
    replace_fraction: float,
    source: random.Random,
) -> str:
    """Mask some words and replace others; at least one word changes.

    Args:
        rationale: A positive rationale of one word or more.
        vocabulary: Words to replace with.
        mask: Text that replaces a masked word.
        mask_fraction: Share of words masked, in expectation.
        replace_fraction: Share of words replaced, in expectation.
        source: Randomness.

    Returns:
        The corrupted text.
    """
    words = rationale.split()
    # One word changes for certain: an unchanged positive would be a negative with a wrong label.
    forced = source.randrange(len(words))
    corrupted = []
    for index, word in enumerate(words):
        # One draw for both: [0, mask) masks, [mask, mask + replace) replaces, the rest keeps.
        draw = source.random()
        if draw < mask_fraction or (index == forced and not vocabulary):
            corrupted.append(mask)
        elif draw < mask_fraction + replace_fraction or index == forced:
            corrupted.append(_other(word, vocabulary, source) or mask)
        else:
            corrupted.append(word)
    return " ".join(corrupted)


def _other(word: str, vocabulary: list[str], source: random.Random) -> str | None:
    # Bounded, for the vocabulary may hold nothing but this word. None: the caller masks instead.
    for _ in range(8):
        drawn = source.choice(vocabulary)
        if drawn != word:
            return drawn
    return None
