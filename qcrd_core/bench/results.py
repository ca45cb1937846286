"""The results of a bench: its tables, their description and their statistics.

    results = read_bench(store, "bench/word_problems")
    results.summaries["qcrd", 1.0].mean
    results.comparisons["qcrd", "dss_sc", 1.0].difference

A bench's folder holds `bench.json` (`BenchDescription`), `cells.parquet` and `answers.parquet`. Its
page can be made again from these files alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl
import yaml
from pydantic import Field

from data_schemas import BenchAnswers, BenchCells
from qcrd_core.bench.config import BenchConfig
from qcrd_core.bench.statistics import Comparison, Summary, compare, summarize
from qcrd_core.config.base import Section
from qcrd_core.errors import DataError
from qcrd_core.store.store import Store

_KEY = ["method", "share", "seed"]
ALL_DATA = 1.0
"""The share of the data at which all methods are compared."""


class BenchDescription(Section):
    """Describes a bench's tables."""

    name: str
    """Name of the bench."""
    dataset: str
    """Data set of all runs."""
    machine: str
    """Hardware and software of the cells in one line, to interpret seconds and bytes."""
    config: str
    """YAML of the run settings that all methods share."""
    methods: dict[str, str] = Field(min_length=1)
    """One line about each method, by name, in the order of the tables."""
    references: tuple[str, ...]
    """Methods that every other method is compared with."""
    share_methods: tuple[str, ...]
    """Methods that are also measured on shares of the training questions."""
    confidence: float = Field(gt=0.5, lt=1)
    """Level of all intervals."""
    notes: str = ""
    """The authors' reading of the tables, in Markdown."""


@dataclass(frozen=True, eq=False)
class BenchResults:
    """A bench's tables and their statistics."""

    description: BenchDescription
    cells: pl.DataFrame
    """Table `bench_cells`."""
    answers: pl.DataFrame
    """Table `bench_answers`."""
    summaries: Mapping[tuple[str, float], Summary]
    """Summaries by method and share; absent without cells."""
    comparisons: Mapping[tuple[str, str, float], Comparison]
    """Comparisons by method, reference and share; absent without common seeds."""

    @property
    def shares(self) -> list[float]:
        """The measured shares of the training questions, in ascending order."""
        return sorted({share for _, share in self.summaries})


def describe(bench: BenchConfig, machine: str) -> BenchDescription:
    """Describe a bench for its readers.

    Args:
        bench: The bench.
        machine: Hardware and software of the cells, in one line.

    Returns:
        The description, which holds only plain values, so that it outlives this code.
    """
    return BenchDescription(
        name=bench.name,
        dataset=str(bench.base["data"]["dataset"]),
        machine=machine,
        config=yaml.safe_dump(bench.base, sort_keys=False, allow_unicode=True),
        methods={method: bench.description(method) for method in bench.methods},
        references=bench.references,
        share_methods=bench.share_methods,
        confidence=bench.confidence,
        notes=bench.notes,
    )


def analyse(
    description: BenchDescription, cells: pl.DataFrame, answers: pl.DataFrame
) -> BenchResults:
    """Compute the statistics of a bench that is complete or still running.

    Args:
        description: Description of the tables.
        cells: Table `bench_cells`.
        answers: Table `bench_answers`.

    Returns:
        The tables with their statistics.

    Raises:
        DataError: If the tables contradict each other or the description, or two cells were not
            tested on the same questions.
    """
    _check(description, cells, answers)
    confidence = description.confidence
    summaries = {(s.method, s.share): s for s in summarize(cells, confidence=confidence)}
    comparisons = {}
    for method, share in summaries:
        for reference in description.references:
            if method != reference:
                found = compare(answers, method, reference, share=share, confidence=confidence)
                if found is not None:
                    comparisons[method, reference, share] = found
    return BenchResults(description, cells, answers, summaries, comparisons)


def compared(results: BenchResults) -> BenchResults | None:
    """The same cells, answered by the other kind of inference that they were tested with.

    Args:
        results: A bench.

    Returns:
        The cells that were, with their statistics; None if there are none.
    """
    cells = results.cells.filter(pl.col("num_correct_compared").is_not_null())
    if cells.is_empty():
        return None
    answers = results.answers.drop_nulls("is_correct_compared")
    return analyse(
        results.description,
        cells.with_columns(num_correct="num_correct_compared"),
        answers.with_columns(is_correct="is_correct_compared"),
    )


def read_bench(store: Store, folder: str) -> BenchResults:
    """Read a bench's folder.

    Args:
        store: The store that holds the bench.
        folder: Its folder relative to the store's root, such as `bench/word_problems`.

    Returns:
        The results.

    Raises:
        StoreError: If a file is absent, or bench.json is damaged.
        DataError: If a table is damaged, or as for `analyse`.
    """
    return analyse(
        store.read_json(f"{folder}/bench.json", BenchDescription),
        store.read_table(f"{folder}/cells.parquet", BenchCells),
        store.read_table(f"{folder}/answers.parquet", BenchAnswers),
    )


def write_bench(store: Store, folder: str, results: BenchResults) -> None:
    """Write a bench's folder, and replace an earlier one.

    Args:
        store: The store to write to.
        folder: The bench's folder relative to the store's root.
        results: The results.

    Raises:
        StoreError: If the store cannot be written.
    """
    store.write_json(f"{folder}/bench.json", results.description.model_dump(mode="json"))
    store.write_table(f"{folder}/cells.parquet", results.cells, BenchCells)
    store.write_table(f"{folder}/answers.parquet", results.answers, BenchAnswers)


def with_others(
    store: Store,
    folder: str,
    description: BenchDescription,
    cells: pl.DataFrame,
    answers: pl.DataFrame,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Add the cells that other processes of the same bench have published.

    Args:
        store: The store.
        folder: The bench's folder.
        description: The bench; tables of other settings are left out.
        cells: Table `bench_cells` of this process.
        answers: Table `bench_answers` of this process.

    Returns:
        Both tables; a cell of this process replaces an earlier one.

    Raises:
        DataError: If a stored table is damaged.
    """
    if not store.exists(f"{folder}/bench.json"):
        return cells, answers
    if store.read_json(f"{folder}/bench.json", BenchDescription).config != description.config:
        return cells, answers
    earlier = (
        store.read_table(f"{folder}/cells.parquet", BenchCells),
        store.read_table(f"{folder}/answers.parquet", BenchAnswers),
    )
    added = [table.join(cells, on=_KEY, how="anti") for table in earlier]
    return pl.concat([cells, added[0]]), pl.concat([answers, added[1]])


def _check(description: BenchDescription, cells: pl.DataFrame, answers: pl.DataFrame) -> None:
    unknown = _absent(cells["method"].unique().to_list(), description.methods)
    if unknown:
        msg = (
            f"Cells of bench {description.name} name methods that bench.json does not describe: "
            f"{', '.join(unknown)}. Remove their rows, or describe them in bench.json."
        )
        raise DataError(msg)
    key = _KEY
    counted = answers.group_by(key).agg(
        pl.len().alias("num_answers"), pl.col("is_correct").sum().alias("num_right")
    )
    measured = cells.filter(pl.col("status") == "ok").select(*key, "num_test", "num_correct")
    both = measured.join(counted, on=key, how="full", coalesce=True)
    agrees = pl.col("num_test").eq_missing(pl.col("num_answers")) & pl.col(
        "num_correct"
    ).eq_missing(pl.col("num_right"))
    odd = both.filter(~agrees).sort(key)
    if odd.height:
        row = odd.row(0, named=True)
        msg = (
            f"The two tables of bench {description.name} contradict each other: for "
            f"{row['method']} at share {row['share']:g} with seed {row['seed']}, cells.parquet "
            f"counts {row['num_correct']} right answers of {row['num_test']}, and answers.parquet "
            f"holds {row['num_right']} of {row['num_answers']}. Run `qcrd bench` again: it writes "
            "both tables."
        )
        raise DataError(msg)


def _absent(names: Sequence[str], known: Mapping[str, str]) -> list[str]:
    return sorted(name for name in names if name not in known)
