"""What will hurt a run, seen from its data set alone: shown before anything is paid for."""

import polars as pl

from qcrd_core.data.spec import DatasetSpec

_MANY = 0.9
_FEW_TEST, _FEW_TRAIN = 100, 100
_LONG_TEXT = 80


def concerns(spec: DatasetSpec, questions: pl.DataFrame, *, is_instructed: bool) -> list[str]:
    """Find what no rule forbids and what still makes a run worth little.

    Args:
        spec: The data set.
        questions: Table `questions`, all splits.
        is_instructed: Whether a teacher is asked that follows the prompt. One that was taught the
            form of the answers, one whose server enforces it, and imported rationales need no
            prompt that names the marker.

    Returns:
        One sentence or two for each, with the numbers; none if all is well.
    """
    found = [
        *_few(questions),
        _most_frequent(questions),
        _unnamed_marker(spec) if is_instructed else None,
        _long_texts(spec, questions),
    ]
    return [sentence for sentence in found if sentence is not None]


def _few(questions: pl.DataFrame) -> list[str]:
    num_test = questions.filter(split="test")["gold_answer"].count()
    num_train = questions.filter(split="train").height
    found = []
    if num_test < _FEW_TEST:
        # Two standard errors of a share near one half.
        margin = 100 / max(1, num_test) ** 0.5
        found.append(
            f"Only {num_test} test questions have answers: an accuracy is known to about "
            f"{min(margin, 50):.0f} points, so students that are less apart cannot be told apart."
        )
    if num_train < _FEW_TRAIN:
        found.append(f"Only {num_train} training questions: a student learns little from so few.")
    return found


def _most_frequent(questions: pl.DataFrame) -> str | None:
    golds = questions["gold_answer"].drop_nulls()
    if golds.is_empty():
        return None
    (answer, count) = (
        golds.value_counts(sort=True)
        .sort(["count", "gold_answer"], descending=[True, False])
        .row(0)
    )
    share = count / golds.len()
    if share < _MANY:
        return None
    return (
        f"{share:.0%} of the answers are {answer!r:.40}: a student that always says so is right as "
        "often. Add questions with other answers, or leave out some of these."
    )


def _unnamed_marker(spec: DatasetSpec) -> str | None:
    marker, prompt = spec.answer.marker, spec.prompt
    if marker is None or prompt.demonstrations:  # a demonstration ends with the marker
        return None
    shown = f"{prompt.instruction or ''}\n{prompt.question_template}"
    if marker.casefold() in shown.casefold():
        return None
    return (
        f"The prompt never names the marker {marker!r}, so the teacher does not know how to end "
        "its answer. Name it in prompt.instruction, or add prompt.demonstrations."
    )


def _long_texts(spec: DatasetSpec, questions: pl.DataFrame) -> str | None:
    if spec.answer.kind != "text":
        return None
    length = questions["gold_answer"].drop_nulls().str.len_chars().median()
    if not isinstance(length, int | float) or length <= _LONG_TEXT:
        return None
    return (
        f"Half of the answers are texts of more than {length:.0f} characters, and two texts are "
        "equal only if they are the same words. A vote on such texts seldom has a majority, and "
        "accuracy stays near 0."
    )
