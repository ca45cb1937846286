"""Numbers of a run that the page and the terminal both show."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from qcrd_core.errors import DataError
from qcrd_core.evaluation import CONFIDENCE, Interval, accuracy_interval, best_round
from qcrd_core.report.data import RunData
from qcrd_core.report.text import percent, teacher_names
from qcrd_core.student.confidence import calibration_error, measured, shortage
from qcrd_core.vote.majority import summarize_votes

FEW_TESTS = 50
"""Fewer test questions than this get a warning."""
USELESS_AUC = 0.6
"""Below this, a discriminator's weights say next to nothing about a rationale."""


@dataclass(frozen=True)
class Accuracy:
    """A share of right answers with its interval."""

    label: str
    num_correct: int
    num_questions: int
    interval: Interval

    @property
    def share(self) -> float:
        """Right answers / questions, in [0, 1]."""
        return self.num_correct / self.num_questions


@dataclass(frozen=True)
class RoundNumbers:
    """The numbers of one round; None if a number was not measured."""

    round: int
    train_loss: float | None
    active_hinge_share: float | None
    validation_accuracy: float | None
    auc_polarity: float | None
    auc_correct: float | None
    ece: float | None
    num_negatives: float | None
    negatives_correct_share: float | None


ROUND_COLUMNS = (
    ("loss", "train_loss", ".3f"),
    ("active hinges", "active_hinge_share", ".1%"),
    ("validation", "validation_accuracy", ".1%"),
    ("AUC polarity", "auc_polarity", ".3f"),
    ("AUC right", "auc_correct", ".3f"),
    ("ECE", "ece", ".3f"),
    ("negatives", "num_negatives", ",.0f"),
)
"""Columns of a table of rounds: (heading, field of `RoundNumbers`, format)."""
MAX_ROUNDS = 12
"""Greatest number of rounds in such a table; the HTML report shows all."""


def round_cells(row: RoundNumbers) -> list[str]:
    """The texts of ROUND_COLUMNS for one round; `-` if a number was not measured."""
    values = [(getattr(row, field), form) for _, field, form in ROUND_COLUMNS]
    return ["-" if value is None else format(value, form) for value, form in values]


def accuracies(data: RunData) -> list[tuple[str, str]]:
    """Accuracies of the student and its teacher, as pairs of (name, text)."""
    test, vote = student_accuracy(data.test), vote_numbers(data)
    student = "not measured"
    if test is not None:
        level = CONFIDENCE
        student = (
            f"{test.share:.1%}  ({level:.0%} interval {test.interval.low:.1%} to "
            f"{test.interval.high:.1%}, {test.num_correct} of {test.num_questions})"
        )
    unweighted = []
    if data.config.voting.weights != "equal":
        found = last_values(data.metrics, "teachers").get("unweighted_majority_accuracy")
        unweighted = [("teacher, unweighted majority", percent(found))]
    return [
        ("student, test", student),
        ("teacher, single sample, training questions", percent(vote.get("sample_accuracy"))),
        ("teacher, majority, training questions", percent(vote.get("majority_accuracy"))),
        *unweighted,
        ("teacher", ", ".join(teacher_names(data.config.teachers))),
    ]


def series(metrics: pl.DataFrame, stage: str, name: str) -> pl.DataFrame:
    """Rows (round, global_step, value) of one metric by step, without nulls."""
    chosen = metrics.filter(
        pl.col("stage") == stage, pl.col("name") == name, pl.col("value").is_not_null()
    )
    return chosen.select("round", "global_step", "value").sort("round", "global_step")


def last_values(metrics: pl.DataFrame, stage: str) -> dict[str, float]:
    """The newest value of each metric of a stage, by name."""
    chosen = metrics.filter(pl.col("stage") == stage, pl.col("value").is_not_null())
    newest = chosen.sort("round", "global_step").unique("name", keep="last")
    return dict(newest.sort("name").select("name", "value").iter_rows())


def student_accuracy(test: pl.DataFrame) -> Accuracy | None:
    """Accuracy of table `predictions` of the test split; None if no row has a gold answer."""
    return _accuracy("test", test, CONFIDENCE)


def scores_of_parts(metrics: pl.DataFrame) -> list[tuple[str, float | None, float | None]]:
    """F1 of sets of labels, or accuracy of the fields of JSON answers.

    Returns:
        Per measure: name, share of the student on the test split, share of the teacher's majority
        on the training questions.
    """
    student, teacher = (last_values(metrics, stage) for stage in ("test", "vote"))
    names = [name for name in {**student, **teacher} if _is_of_part(name)]
    return [(_part(name), student.get(name), teacher.get(name)) for name in names]


def _is_of_part(name: str) -> bool:
    return name.endswith("_f1") or name.startswith("accuracy_of_")


def _part(name: str) -> str:
    if name.startswith("accuracy_of_"):
        return f"accuracy of field {name.removeprefix('accuracy_of_')}"
    return name.replace("_f1", " F1")


def confidence_text(data: RunData) -> str:
    """How far the confidences of the test answers can be trusted, as a sentence."""
    found = calibration_error(data.test)
    if found is not None:
        error, interval = found
        return (
            f"Expected calibration error {error:.1%} ({CONFIDENCE:.0%} interval "
            f"{interval.low:.1%} to {interval.high:.1%}) over {measured(data.test).height:,} test "
            "answers."
        )
    return shortage(data.validation) or "No test answer has a confidence and a gold answer."


def surest_answers(data: RunData) -> list[Accuracy]:
    """Accuracy of the surest quarter, half, ... of the test answers; empty without confidences."""
    known = data.test.drop_nulls(["is_correct", "confidence"])
    ordered = known.sort("confidence", "question_id", descending=[True, False])
    counts = {f"surest {share}%": known.height * share // 100 for share in (25, 50, 75)}
    parts = [
        _accuracy(label, ordered.head(count), CONFIDENCE)
        for label, count in {**counts, "all": known.height}.items()
    ]
    return [part for part in parts if part is not None]


def accuracy_by_template(data: RunData) -> list[Accuracy]:
    """Test accuracy of each template of the data set, best first; empty without templates."""
    slices = data.test.join(data.questions.select("question_id", "template"), on="question_id")
    confidence = CONFIDENCE
    parts = slices.drop_nulls("template").partition_by("template", as_dict=True)
    measured = [_accuracy(str(key[0]), part, confidence) for key, part in parts.items()]
    return sorted((a for a in measured if a is not None), key=lambda a: (-a.share, a.label))


def chosen_round(data: RunData) -> int | None:
    """Round whose student has the best validation accuracy; None without validation."""
    try:
        return best_round(data.metrics)
    except DataError:
        return None


def vote_numbers(data: RunData) -> dict[str, float | None]:
    """The vote's counts as the run recorded them, completed from table `votes`."""
    counted = summarize_votes(data.votes) if not data.votes.is_empty() else {}
    return {**counted, **last_values(data.metrics, "vote")}


def round_numbers(data: RunData) -> list[RoundNumbers]:
    """Numbers of each round. Training numbers are means over the round's steps."""
    rounds = data.metrics.filter(
        pl.col("stage").is_in(["train", "validation", "discriminator", "negatives"])
    )["round"]

    def by_round(stage: str, name: str, *, mean: bool = False) -> dict[int, float]:
        value = pl.col("value").mean() if mean else pl.col("value").last()
        grouped = series(data.metrics, stage, name).group_by("round", maintain_order=True)
        return dict(grouped.agg(value).iter_rows())

    columns = {
        "train_loss": by_round("train", "loss", mean=True),
        "active_hinge_share": by_round("train", "active_hinge_share", mean=True),
        "validation_accuracy": by_round("validation", "accuracy"),
        "auc_polarity": by_round("discriminator", "auc_polarity"),
        "auc_correct": by_round("discriminator", "auc_correct"),
        "ece": by_round("discriminator", "ece"),
        "num_negatives": by_round("negatives", "num_rows"),
        "negatives_correct_share": by_round("negatives", "correct_share"),
    }
    return [
        RoundNumbers(round=key, **{name: values.get(key) for name, values in columns.items()})
        for key in sorted(rounds.unique().to_list())
    ]


def warnings(metrics: pl.DataFrame, test: pl.DataFrame, *, has_negatives: bool = True) -> list[str]:
    """Warnings that a reader of a run must not miss, as sentences.

    Args:
        metrics: Table `metrics`.
        test: Table `predictions` of the test split.
        has_negatives: Whether the loss pushes negatives.
    """
    found = _test_warnings(test)
    measured = series(metrics, "discriminator", "auc_polarity")
    if not measured.is_empty() and measured["value"][-1] < USELESS_AUC:
        found.append(
            f"The discriminator cannot tell positive from negative rationales: in its last round "
            f"the positive one scores higher in {measured['value'][-1]:.0%} of pairs (AUC; 50% is "
            "chance). The rationale weights of this run carry no information."
        )
    hinges = series(metrics, "train", "active_hinge_share")
    in_last_round = hinges.filter(pl.col("round") == pl.col("round").max())["value"].to_list()
    if has_negatives and in_last_round and max(in_last_round) == 0:
        found.append(
            "No negative was inside the margin in the last round, so the contrastive term had no "
            "effect. Try a larger loss.delta or a higher negatives.sampling_temperature."
        )
    return found


def run_warnings(data: RunData) -> list[str]:
    """`warnings` of a run."""
    loss = data.config.loss
    return warnings(
        data.metrics, data.test, has_negatives=loss.beta > 0 and loss.alpha_contrastive > 0
    )


def _test_warnings(test: pl.DataFrame) -> list[str]:
    """What to do about a student that learnt nothing, or a test that shows nothing."""
    accuracy, found = student_accuracy(test), []
    if accuracy is None:
        return []
    golds = test.drop_nulls("is_correct")["gold_answer"]
    commonest = int(golds.value_counts()["count"].max())  # type: ignore[arg-type]
    if accuracy.num_correct <= commonest < accuracy.num_questions:
        baseline = commonest / accuracy.num_questions
        found.append(
            f"The student learnt next to nothing: it is right in {accuracy.share:.1%} of the test "
            f"questions, the most frequent answer alone in {baseline:.1%}. "
            "Train longer (training.num_rounds, training.steps_per_round), on more questions, or "
            "begin with a pretrained student (student.model)."
        )
    if accuracy.num_questions < FEW_TESTS:
        chance = 1.4 / accuracy.num_questions**0.5
        found.append(
            f"{accuracy.num_questions} test questions tell little: with so few, only differences "
            f"beyond about {chance:.0%} are more than chance."
        )
    return found


def timings(data: RunData) -> list[tuple[str, float]]:
    """Seconds by stage, summed over rounds, longest first."""
    rows = data.metrics.filter(
        pl.col("stage") == "timing",
        pl.col("value").is_not_null(),
        pl.col("name").str.ends_with("_seconds"),
    )
    sums = rows.group_by("name").agg(pl.col("value").sum()).sort("value", descending=True)
    return [(name.removesuffix("_seconds"), value) for name, value in sums.iter_rows()]


def servers(data: RunData) -> list[dict[str, str | float]]:
    """The teacher's servers, each with url, tokens_per_second, concurrency, failures and drains."""
    found: dict[str, dict[str, str | float]] = {}
    rows = data.metrics.filter(pl.col("stage") == "servers").select("name", "value")
    for name, value in rows.iter_rows():
        url, _, figure = name.rpartition(" ")
        found.setdefault(url, {"url": url})[figure] = value
    return sorted(found.values(), key=lambda server: -float(server["tokens_per_second"]))


def _accuracy(label: str, predictions: pl.DataFrame, confidence: float) -> Accuracy | None:
    known: Sequence[bool] = predictions["is_correct"].drop_nulls().to_list()
    if not known:
        return None
    interval = accuracy_interval(sum(known), len(known), confidence)
    return Accuracy(label, sum(known), len(known), interval)
