"""The sampling plan: wanted keys minus stored keys.

Resuming, adding questions and raising K are this one operation. A row counts for a question only
if it was sampled with the question's present text and choices (`prompt_hash`); older rows stay in
the store and are ignored. A failed row counts as present, because its error is permanent.
"""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from pyarrow import fs

from data_schemas import Rationales, SchemaMismatchError, read_part
from qcrd_core.config.teacher import TeacherSection
from qcrd_core.errors import DataError
from qcrd_core.ids import content_hash, fingerprint
from qcrd_core.store.parts import collect, open_folder, read_again
from qcrd_core.store.store import Store, part_name
from qcrd_core.teacher.generation import (
    FILE,
    announce_changes,
    differences,
    generation_folder,
    read_local_identity,
)

logger = logging.getLogger(__name__)

_KEYS = ("question_id", "sample_idx", "prompt_hash")
_ASKED = ("question_id", "prompt_hash")
_ROWS_PER_BATCH = 200_000


SampleKey = tuple[str, int, str]
"""question_id, sample_idx, prompt_hash."""


@dataclass(frozen=True)
class Shard:
    """The samples that become one part."""

    part: str
    """File name of the part."""
    keys: tuple[SampleKey, ...]
    """Sorted."""


@dataclass(frozen=True, eq=False)
class SamplingPlan:
    """What a run still has to sample in one generation."""

    fingerprint: str
    """Fingerprint of `identity`."""
    folder: str
    """The generation's folder in the store."""
    dataset: str
    """Name of the data set."""
    identity: Mapping[str, Any]
    """Everything that reaches the model, for `generation.json`."""
    shards: tuple[Shard, ...]
    """The samples that are missing."""
    reused: pl.DataFrame
    """Rows of `teacher.reuse` that `open_generation` will bring into the store."""
    num_wanted: int
    """Questions x K."""
    num_stored: int
    """Wanted samples that the store holds already."""
    parts: frozenset[str]
    """Names of the stored parts that this plan has read."""

    @property
    def num_missing(self) -> int:
        """Samples in `shards`."""
        return sum(len(shard.keys) for shard in self.shards)


def prompt_hashes(questions: pl.DataFrame) -> pl.Series:
    """Hash what each question puts into the prompt: its text and its choices.

    Args:
        questions: Table `questions`.

    Returns:
        One hash per row, named `prompt_hash`.
    """
    rows = questions.select("question", "choices").iter_rows()
    hashes = [content_hash(question, *(choices or ())) for question, choices in rows]
    return pl.Series("prompt_hash", hashes, dtype=pl.String)


def plan_sampling(
    store: Store,
    dataset: str,
    identity: Mapping[str, Any],
    *,
    questions: pl.DataFrame,
    teacher: TeacherSection,
    needed: pl.DataFrame | None = None,
) -> SamplingPlan:
    """Find out which samples are missing. Only reads, so a dry run can call it.

    Args:
        store: The store.
        dataset: The data set's name.
        identity: From `generation_identity`.
        questions: Table `questions`, the rows to sample.
        teacher: K, shard size and folders to reuse.
        needed: question_id and num_needed of questions that need fewer than K samples now.

    Returns:
        The plan.

    Raises:
        DataError: If a part is damaged.
        StoreError: If a folder of `teacher.reuse` has no generation.json.
    """
    folder = generation_folder(dataset, identity)
    parts = frozenset(store.list(folder, suffix=".parquet"))
    held = read_again(
        store,
        folder,
        lambda: _held(store, folder, questions=questions, num_samples=teacher.num_samples),
    )
    missing = _missing(held, teacher.num_samples)
    if needed is not None:
        missing = missing.join(needed, on="question_id", how="left", maintain_order="left")
        missing = missing.filter(pl.col("sample_idx") < pl.col("num_needed")).select(_KEYS)
    reused = reusable_rows(teacher.reuse, identity, missing)
    missing = missing.join(reused.select(_KEYS), on=_KEYS, how="anti")
    return SamplingPlan(
        fingerprint=fingerprint(identity),
        folder=folder,
        dataset=dataset,
        identity=dict(identity),
        shards=tuple(_shards(missing, teacher.questions_per_shard)),
        reused=reused,
        num_wanted=questions.height * teacher.num_samples,
        num_stored=int(held["sample_idx"].list.len().sum()),
        parts=parts,
    )


def open_generation(store: Store, plan: SamplingPlan, of_run: Collection[str] = ()) -> None:
    """Write `generation.json` and store reused rows, before anything is sampled.

    If the data set has another generation, the log says what differs.

    Args:
        store: The store.
        plan: From `plan_sampling`.
        of_run: Fingerprints of all teachers of the run: their generations are no earlier settings.
    """
    path = f"{plan.folder}/{FILE}"
    if not store.exists(path):
        announce_changes(store, plan.dataset, plan.identity, of_run)
        store.write_json(path, plan.identity)
    if plan.reused.height:
        part = part_name(plan.reused.select(_KEYS))
        store.write_table(f"{plan.folder}/{part}", plan.reused, Rationales)
        logger.info("Reused %d samples of teacher.reuse | %s", plan.reused.height, plan.folder)


def read_samples(
    store: Store,
    folder: str,
    *,
    questions: pl.DataFrame,
    num_samples: int,
    columns: Sequence[str] | None = None,
) -> pl.DataFrame:
    """Read a generation's samples of the present texts of these questions.

    Args:
        store: The store.
        folder: The generation's folder; an absent one is empty.
        questions: Table `questions`, the wanted rows.
        num_samples: K; samples with a number of K or more are ignored.
        columns: Columns to return. Only these are read, and no rule that joins columns is checked,
            which `qcrd validate` does. None returns all of table `rationales`, checked.

    Returns:
        The rows, sorted by question_id and sample_idx, each key once.

    Raises:
        DataError: If a part is damaged.
    """
    asked = _asked(questions)
    if columns is None:
        return _merge(
            read_again(
                store, folder, lambda: list(_checked_batches(store, folder, asked, num_samples))
            )
        )
    where = f"{store}/{folder}"

    def scan() -> list[pl.DataFrame]:
        rows = open_folder(store, folder, Rationales).scan()
        wanted = rows.filter(pl.col("sample_idx") < num_samples)
        chosen = wanted.join(asked.lazy(), on=_ASKED, how="semi")
        return [collect(chosen.select(*dict.fromkeys([*_KEYS[:2], *columns])), where)]

    return _merge(read_again(store, folder, scan)).select(columns)


def reusable_rows(
    folders: Sequence[Path], identity: Mapping[str, Any], missing: pl.DataFrame
) -> pl.DataFrame:
    """Find rows of earlier runs that were sampled in exactly the same way.

    Args:
        folders: Local folders with `generation.json` and `part-*.parquet`.
        identity: This run's generation. A folder of another generation is ignored, and the log says
            what differs.
        missing: Wanted keys that the store lacks: question_id, sample_idx, prompt_hash.

    Returns:
        Table `rationales`, rows of missing keys only.

    Raises:
        DataError: If a part is damaged.
        StoreError: If a folder has no generation.json.
    """
    frames = []
    for folder in folders:
        found = differences(read_local_identity(folder), identity)
        if found:
            logger.warning(
                "The samples in %s were drawn with other settings and are not reused: %s",
                folder,
                "; ".join(found),
            )
            continue
        for path in sorted(folder.glob("part-*.parquet")):
            frames.append(_read_local_part(path).join(missing, on=_KEYS, how="semi"))
    return _merge(frames)


def _checked_batches(
    store: Store,
    folder: str,
    asked: pl.DataFrame,
    num_samples: int,
) -> Iterator[pl.DataFrame]:
    """Wanted rows of a generation, batch by batch."""
    for parts in _batches(store, folder):
        try:
            rows = pl.concat(parts.values()).filter(pl.col("sample_idx") < num_samples)
            # Rows of an older text of their question stay in the store and are ignored.
            rows = rows.join(_between(asked, rows["question_id"]), on=_ASKED, how="semi")
            rows = rows.unique(_KEYS, keep="first", maintain_order=True)
            checked = store.check_rows(rows, Rationales, folder)
        except (DataError, pl.exceptions.PolarsError):
            for path, part in parts.items():
                store.check_rows(part, Rationales, path)  # its error names the damaged part
            raise
        yield checked


def _asked(questions: pl.DataFrame) -> pl.DataFrame:
    """question_id and prompt_hash of the questions, sorted."""
    return questions.select("question_id").with_columns(prompt_hashes(questions)).sort(_ASKED)


def _held(store: Store, folder: str, *, questions: pl.DataFrame, num_samples: int) -> pl.DataFrame:
    """question_id, prompt_hash and the list of stored sample_idx per question.

    Reads only the keys and keeps one row per question: ten million key rows would take gigabytes.
    """
    lazy = open_folder(store, folder, Rationales).scan().select(_KEYS)
    grouped = lazy.filter(pl.col("sample_idx") < num_samples).group_by(_ASKED)
    held = collect(grouped.agg(pl.col("sample_idx").unique()), f"{store}/{folder}")
    return _asked(questions).join(held, on=_ASKED, how="left")


def _missing(held: pl.DataFrame, num_samples: int) -> pl.DataFrame:
    """Keys that the store lacks, sorted."""
    indices = pl.DataFrame({"sample_idx": pl.Series(range(num_samples), dtype=pl.Int32)})
    count = pl.col("sample_idx").list.len().fill_null(0)
    incomplete = held.filter(count < num_samples)
    wanted = incomplete.select(_ASKED).join(indices, how="cross").select(_KEYS)
    stored = incomplete.explode("sample_idx").select(_KEYS)
    return wanted.join(stored, on=_KEYS, how="anti").sort(_KEYS)


def _shards(missing: pl.DataFrame, questions_per_shard: int) -> list[Shard]:
    ordered = missing.sort(_KEYS)
    number = (pl.col("question_id").rle_id() // questions_per_shard).alias("shard")
    parts = ordered.with_columns(number).partition_by("shard", maintain_order=True)
    keys = [part.select(_KEYS) for part in parts]
    return [Shard(part=part_name(rows), keys=tuple(rows.rows())) for rows in keys]


def _batches(store: Store, folder: str) -> Iterator[dict[str, pl.DataFrame]]:
    """Parts of a generation by path, in batches of about `_ROWS_PER_BATCH` rows."""
    parts: dict[str, pl.DataFrame] = {}
    num_rows = 0
    for name in store.list(folder, suffix=".parquet"):
        path = f"{folder}/{name}"
        parts[path] = store.load_part(path, Rationales)
        num_rows += parts[path].height
        if num_rows >= _ROWS_PER_BATCH:
            yield parts
            parts, num_rows = {}, 0
    if parts:
        yield parts


def _between(asked: pl.DataFrame, ids: pl.Series) -> pl.DataFrame:
    """Questions in the range of these ids: a part holds neighbours, so the join stays small."""
    return asked.filter(pl.col("question_id").is_between(pl.lit(ids.min()), pl.lit(ids.max())))


def _merge(frames: list[pl.DataFrame]) -> pl.DataFrame:
    """Rows of all frames, sorted by key, each key once; each question has one prompt_hash.

    Empties the list, so that ten million rows are not held twice in memory.
    """
    if not frames:
        return Rationales.create_empty()
    ordered = pl.concat(frames, rechunk=False).sort("question_id", "sample_idx")
    frames.clear()
    # A repeated key was sampled twice with the same seed, so either row is right. Neighbouring rows
    # are compared, because a hash table of ten million keys takes a gigabyte.
    is_again = pl.int_range(pl.len()) > 0
    for name in ("question_id", "sample_idx"):
        is_again &= pl.col(name).eq_missing(pl.col(name).shift(1))
    again = ordered.select(again=is_again)["again"]
    return ordered.filter(~again) if again.any() else ordered


def _read_local_part(path: Path) -> pl.DataFrame:
    try:
        with fs.LocalFileSystem().open_input_file(str(path)) as source:
            return read_part(source, Rationales, str(path))
    except SchemaMismatchError as error:
        raise DataError(str(error)) from error
