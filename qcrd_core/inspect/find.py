"""Find rationales that meet a SQL condition."""

import re
from dataclasses import dataclass

import polars as pl

from qcrd_core.errors import ConfigError, DataError
from qcrd_core.inspect.view import ROW_COLUMNS, RUN_COLUMNS, View
from qcrd_core.store.parts import collect

ROW_KEY = ("question_id", "source", "round", "generation", "sample_idx")
# For each question, the teacher's rationales come before the students'.
_ORDER = (
    pl.col("question_id"),
    pl.col("source") == "student",
    *(pl.col(name) for name in ROW_KEY[1:]),
)


# Far beyond these, polars' parser and planner take minutes (900 summands, 60 nested casts).
_MOST_TOKENS, _MOST_BRACKETS = 200, 20
_TOKEN = re.compile(r"'[^']*'|\w+|\S")
# A panic of polars derives from BaseException alone.
_POLARS_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException)


@dataclass(frozen=True, eq=False)
class Found:
    """One page of rows."""

    num_rows: int
    """Number of rows that meet the condition, on all pages."""
    rows: pl.DataFrame
    """Columns ROW_COLUMNS, by question, teacher before students, round and sample."""


def condition(text: str) -> pl.Expr:
    """Read a SQL expression over ROW_COLUMNS.

    Args:
        text: For example `agreement < 0.5 AND is_correct`.

    Returns:
        The expression.

    Raises:
        ConfigError: If the text is not an expression, is too long, or names an unknown column.
    """
    _check_size(text)
    try:
        expression = pl.sql_expr(text)
        names = expression.meta.root_names()
    except (*_POLARS_ERRORS, UnicodeError) as error:
        raise _refused(text, str(error)) from error
    unknown = sorted(set(names) - set(ROW_COLUMNS))
    if unknown:
        raise _refused(text, f"unknown column {unknown[0]}; columns are {', '.join(ROW_COLUMNS)}")
    return expression


def find_rows(view: View, where: str | None, *, limit: int, offset: int = 0) -> Found:
    """Find rationales.

    Args:
        view: A store or a run.
        where: SQL expression over ROW_COLUMNS; None takes all rows.
        limit: Greatest number of rows to return.
        offset: Number of rows to skip first.

    Returns:
        The rows, and the total number of rows.

    Raises:
        ConfigError: If the expression is invalid, is not a condition, or names an unknown column.
        DataError: If a part is damaged.
    """
    keys = matching_keys(view, where)
    return Found(keys.height, read_rows(view, keys.slice(offset, limit)))


def matching_keys(view: View, where: str | None) -> pl.DataFrame:
    """Find the keys of the rationales that meet a condition.

    Args:
        view: A store or a run.
        where: SQL expression over ROW_COLUMNS; None takes all rows.

    Returns:
        Columns ROW_KEY, by question, teacher before students, round and sample.

    Raises:
        ConfigError: If the expression is invalid, is not a condition, or names an unknown column.
        DataError: If a part is damaged.
    """
    return collect_matching(view, where, ROW_KEY).sort(_ORDER)


def read_rows(view: View, keys: pl.DataFrame) -> pl.DataFrame:
    """Read a few rationales by their keys.

    Args:
        view: A store or a run.
        keys: Columns ROW_KEY.

    Returns:
        Columns ROW_COLUMNS, in the order of the keys.

    Raises:
        DataError: If a part is damaged.
    """
    ids = keys["question_id"].unique().to_list()
    rows = view.rows(question_ids=ids).join(keys.lazy(), on=ROW_KEY, how="semi", nulls_equal=True)
    return collect(rows.sort(_ORDER), view.name)


def collect_matching(view: View, where: str | None, columns: tuple[str, ...]) -> pl.DataFrame:
    """Collect the rows of `matching`.

    Raises:
        ConfigError: If the expression is not a condition, or fails on a value, as a cast may.
        DataError: If a part is damaged.
    """
    lazy = matching(view, where, columns)
    try:
        return collect(lazy, view.name)
    except DataError as error:
        if where is not None and isinstance(error.__cause__, _POLARS_ERRORS):
            # An error of the condition looks like a damaged part. Reading without the condition
            # tells them apart: it fails if a part is damaged.
            read = condition(where).meta.root_names()
            collect(view.rows({*columns, *read}).select(pl.all().count()), view.name)
            raise _refused(where, str(error.__cause__)) from error
        raise


def matching(view: View, where: str | None, columns: tuple[str, ...]) -> pl.LazyFrame:
    """Columns of all rows that meet a condition, as a lazy frame.

    Args:
        view: A store or a run.
        where: SQL expression over ROW_COLUMNS; None takes all rows.
        columns: Which of ROW_COLUMNS to return.

    Returns:
        The rows.

    Raises:
        ConfigError: If the expression is invalid or not a condition, or names a column that is
            unknown or that only a run has.
    """
    if where is None:
        return view.rows(columns)
    expression = condition(where)
    of_run = sorted(RUN_COLUMNS.intersection(expression.meta.root_names()))
    if view.run_id is None and of_run:
        runs = ", ".join(view.run_ids) or "none yet"
        raise _refused(
            where, f"{of_run[0]} exists only in a run, <store>/runs/<run id>; runs: {runs}"
        )
    lazy = view.rows({*columns, *expression.meta.root_names()})
    # Trying it on an empty frame reports a wrong type before a million rows are read.
    empty = pl.DataFrame(schema=lazy.collect_schema()).lazy()
    try:
        kind = empty.select(expression.alias("condition")).collect_schema()["condition"]
        empty.filter(expression).collect()
    except _POLARS_ERRORS as error:
        raise _refused(where, str(error)) from error
    if kind != pl.Boolean:
        raise _refused(where, f"it gives a {kind}, not true or false")
    return lazy.filter(expression).select(pl.col(name) for name in ROW_COLUMNS if name in columns)


def _check_size(text: str) -> None:
    tokens = _TOKEN.findall(text)
    depth = deepest = 0
    for token in tokens:
        depth += (token == "(") - (token == ")")
        deepest = max(deepest, depth)
    if len(tokens) > _MOST_TOKENS or deepest > _MOST_BRACKETS:
        reason = (
            f"it has {len(tokens)} words and signs and brackets {deepest} deep, at most "
            f"{_MOST_TOKENS} and {_MOST_BRACKETS} are read"
        )
        raise _refused(text[:60] + "...", reason)


def _refused(text: str, reason: str) -> ConfigError:
    detail = " ".join(reason.splitlines()[0].split()).rstrip(".") if reason else "no reason"
    return ConfigError(
        f"--where must be a SQL condition over a row's columns; got {text!r}: {detail}. Example: "
        '"agreement < 0.5 AND is_correct".'
    )
