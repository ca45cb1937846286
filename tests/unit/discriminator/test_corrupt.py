import random

from qcrd_core.discriminator.corrupt import corrupt


def test_corrupt_always_changes_the_text():
    source = random.Random(0)
    for _ in range(50):
        changed = corrupt(
            "3 + 4 = 7.",
            ["3", "9", "boxes"],
            mask="<mask>",
            mask_fraction=0.1,
            replace_fraction=0.1,
            source=source,
        )
        assert changed != "3 + 4 = 7."
        assert len(changed.split()) == 5


def test_corrupt_without_vocabulary_masks():
    text = corrupt(
        "yes", [], mask="<mask>", mask_fraction=0.0, replace_fraction=0.0, source=random.Random(1)
    )
    assert text == "<mask>"
