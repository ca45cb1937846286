"""Questions of a data set, all splits, ready to be written as table `questions`.

questions = load_questions(load_spec("svamp"), config.data)
run_id = config.run_id(questions_hash(questions))
"""

import json
import logging
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import polars as pl

from data_schemas import Questions
from qcrd_core.config.run import DataSection
from qcrd_core.data.answers import canonical, equal
from qcrd_core.data.chats import conversation_key
from qcrd_core.data.files import Row, read_rows
from qcrd_core.data.hub import hub_rows
from qcrd_core.data.questions import distinct, parts_to_questions, to_questions
from qcrd_core.data.shards import files_of
from qcrd_core.data.spec import DatasetSpec, FilesSource, HubSource, WordProblemsSource
from qcrd_core.errors import ConfigError, DataError
from qcrd_core.ids import content_hash

logger = logging.getLogger(__name__)

_SPLITS = ("train", "validation", "test")
_HASH_DIGITS = 16

Reader = Callable[[Path], list[Row]]


def load_questions(spec: DatasetSpec, data: DataSection, read: Reader = read_rows) -> pl.DataFrame:
    """Read, split, check and limit a data set's questions.

    Args:
        spec: The data set.
        data: Local copy and limits; `label` determines whether training questions need a gold
            answer.
        read: Reads one of the user's files.

    Returns:
        Table `questions`: train, validation, test, each in the source's order.

    Raises:
        ConfigError: If `data.path` is set for a data set that is not on the hub, or more questions
            of word_problems are requested than exist.
        DataError: If a file, column, question, choice, id or gold answer breaks a rule, the hub
            cannot be reached, or a split is empty.
    """
    if data.path is not None and not isinstance(spec.source, HubSource):
        msg = (
            f"data.path applies only to a data set of the hub; {spec.name} has source type "
            f"{spec.source.type}. Remove data.path."
        )
        raise ConfigError(msg)
    frame = _read(spec, data, read)
    preferred = pl.concat([_split(frame, name) for name in reversed(_SPLITS)])
    kept, num_left_out = distinct(preferred, spec, spec.name)
    if num_left_out:
        _warn_once(f"{spec.name}: ignored {num_left_out} repeated questions")
    limits = {"train": data.max_train, "validation": data.max_validation, "test": data.max_test}
    frame = pl.concat([_split(kept, name).head(limits[name] or kept.height) for name in _SPLITS])
    _check_splits(frame, spec)
    _check_labels(frame, spec, data)
    _warn_of_targets(frame, spec)
    logger.info(
        "%s: %s questions",
        spec.name,
        " | ".join(f"{_split(frame, name).height} {name}" for name in _SPLITS),
    )
    return Questions.validate(frame, cast=True)


def questions_hash(frame: pl.DataFrame) -> str:
    """Hash a questions table, independently of its row order.

    Args:
        frame: Table `questions`.

    Returns:
        16 hex digits.
    """
    # Without conversations it is the hash of version 1, from which runs before it have their names.
    names = sorted(
        name for name in frame.columns if name != "messages" or frame["messages"].count()
    )
    rows = frame.select(names).sort("question_id").iter_rows()
    return content_hash(*(json.dumps(row, ensure_ascii=False) for row in rows))


def check_validation(questions: pl.DataFrame, spec: DatasetSpec) -> None:
    """Check that the best round can be found.

    Args:
        questions: Table `questions`.
        spec: The data set.

    Raises:
        DataError: If no validation question has a gold answer.
    """
    validation = questions.filter(pl.col("split") == "validation")
    if validation["gold_answer"].null_count() == validation.height:
        msg = (
            "Validation questions must have gold answers, because they decide the best round; got "
            f"none in {validation.height} questions ({spec.name}). Set columns.gold_answer, or set "
            "source.validation to a file with answers."
        )
        raise DataError(msg)


def _read(spec: DatasetSpec, data: DataSection, read: Reader) -> pl.DataFrame:
    source = spec.source
    if isinstance(source, WordProblemsSource):
        from qcrd_core.data.word_problems import generate

        return generate(
            source.seed,
            num_train=source.num_train,
            num_validation=source.num_validation,
            num_test=source.num_test,
        )
    if isinstance(source, FilesSource):
        return _read_files(source, spec, read)
    return _read_hub(source, spec, data)


def _read_files(source: FilesSource, spec: DatasetSpec, read: Reader) -> pl.DataFrame:
    named = {"train": source.train, "validation": source.validation, "test": source.test}
    frames = {
        split: parts_to_questions(
            [(str(path), read(path)) for path in files_of(paths)], spec, split
        )
        for split, paths in named.items()
        if paths is not None
    }
    fractions = {
        split: fraction
        for split, fraction in (
            ("test", source.test_fraction),
            ("validation", source.validation_fraction),
        )
        if split not in frames
    }
    frames["train"] = _take_fractions(frames["train"], fractions)
    return pl.concat(frames.values())


def _read_hub(source: HubSource, spec: DatasetSpec, data: DataSection) -> pl.DataFrame:
    rows = hub_rows(source, data.path)
    where = source.repo if data.path is None else str(data.path)
    frames = {
        split: pl.concat(
            [to_questions(rows[name], spec, split, where=f"{where}, {name}") for name in names]
        )
        for split in _SPLITS
        if (names := getattr(source, split))
    }
    sizes = {"test": source.test_size, "validation": source.validation_size}
    wanted = {split: size for split, size in sizes.items() if size is not None}
    frames["train"] = _take_sizes(frames["train"], wanted, where)
    return pl.concat(frames.values())


def _take_fractions(frame: pl.DataFrame, fractions: dict[str, float]) -> pl.DataFrame:
    """Assign each row to a split by a threshold on its hash, so that new rows move no old ones.

    A split that would stay empty, because there are few rows, gets the next row by hash.
    """
    groups = _groups(frame)
    hashes = _split_hashes(groups.values())
    scale = 16**_HASH_DIGITS
    splits = dict.fromkeys(hashes, "train")
    ordered = sorted(hashes, key=lambda group: hashes[group])
    low, taken = 0.0, 0
    for split, fraction in fractions.items():
        high = low + fraction
        below = sum(value < high * scale for value in hashes.values())
        end = min(max(below, taken + 1), len(ordered))
        for group in ordered[taken:end]:
            splits[group] = split
        low, taken = high, max(end, taken)
    return _with_splits(frame, {name: splits[group] for name, group in groups.items()})


def _groups(frame: pl.DataFrame) -> dict[str, str]:
    """What shares a split with each question: itself, or all rows of its conversation."""
    return {
        question_id: question_id if messages is None else conversation_key(messages)
        for question_id, messages in frame.select("question_id", "messages").iter_rows()
    }


def _take_sizes(frame: pl.DataFrame, sizes: dict[str, int], where: str) -> pl.DataFrame:
    """Assign an exact number of rows to each split, those with the smallest hashes first."""
    hashes = _split_hashes(frame["question_id"])
    total = sum(sizes.values())
    if total >= len(hashes):
        msg = (
            f"validation_size and test_size must leave training questions; got {total} of "
            f"{len(hashes)} questions ({where}). Lower validation_size or test_size."
        )
        raise DataError(msg)
    ordered = iter(sorted(hashes, key=lambda question_id: hashes[question_id]))
    splits = dict.fromkeys(hashes, "train")
    for split, size in sizes.items():
        for _ in range(size):
            splits[next(ordered)] = split
    return _with_splits(frame, splits)


def _split_hashes(names: Iterable[str]) -> dict[str, int]:
    distinct = dict.fromkeys(names)
    return {name: int(content_hash("split", name, length=_HASH_DIGITS), 16) for name in distinct}


def _with_splits(frame: pl.DataFrame, splits: dict[str, str]) -> pl.DataFrame:
    names = [splits[question_id] for question_id in frame["question_id"]]
    return frame.with_columns(pl.Series("split", names, dtype=frame.schema["split"]))


def _split(frame: pl.DataFrame, split: str) -> pl.DataFrame:
    return frame.filter(pl.col("split") == split)


def _check_splits(frame: pl.DataFrame, spec: DatasetSpec) -> None:
    for split in _SPLITS:
        if _split(frame, split).is_empty():
            msg = (
                f"{spec.name} must have at least one {split} question; got none. Add questions, or "
                f"a file for {split}."
            )
            raise DataError(msg)


def _check_labels(frame: pl.DataFrame, spec: DatasetSpec, data: DataSection) -> None:
    if data.label != "gold":
        return
    unlabelled = _split(frame, "train").filter(pl.col("gold_answer").is_null())
    if unlabelled.height:
        msg = (
            "Every training question must have a gold answer when data.label is gold; got "
            f"{unlabelled.height} without (first: {unlabelled['question_id'][0]}, {spec.name}). "
            "Name columns.gold_answer, or set data.label=majority."
        )
        raise DataError(msg)


def _warn_of_targets(frame: pl.DataFrame, spec: DatasetSpec) -> None:
    """Warn about learned labels that would count as wrong if the student wrote them exactly."""
    if spec.answer.is_learnt_as_written and spec.columns.gold_target is None:
        return  # each is the gold answer as written, and has been read
    rows = frame.drop_nulls(["gold_target", "gold_answer"])
    columns = rows.select("gold_target", "choices", "question", "gold_answer").iter_rows()
    num_wrong = sum(
        not equal(canonical(target, spec.answer, choices, question), gold)
        for target, choices, question, gold in columns
    )
    if num_wrong:
        _warn_once(
            f"{spec.name}: {num_wrong} of {rows.height} learned labels differ in value from their "
            "gold answer"
        )


@cache
def _warn_once(text: str) -> None:
    """Warn once per process, because a bench loads the questions again for each of its cells."""
    logger.warning(text)
