"""Remembers what is computed from tables, which would take nearly all of a night's real time.

Parquet, the checks of a schema and every operation of polars are functions of their inputs alone,
and the same few inputs come back in every night. So each is computed once, by the real code, and
from then on looked up by the content of its inputs. A part that is cut short has another content,
so damage is still found.
"""

import io
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
from pydantic import BaseModel

import data_schemas.table
from data_schemas.table import Table
from qcrd_core.registry import registry
from qcrd_core.run import records
from qcrd_core.stages import plan
from qcrd_core.store import parts, store

_EAGER = (
    "cast", "drop", "drop_nulls", "explode", "filter", "join", "partition_by", "select", "slice",
    "sort", "unique", "with_columns",
)  # fmt: skip
_ONCE = (type(_ for _ in ()), type({}.values()))


def _frame_key(frame: pl.DataFrame) -> Any:
    found = frame.__dict__.get("key")
    if found is None:
        found = frame.key = hash((repr(frame.rows()), *frame.columns, *frame._df.dtype_strings()))
    return found


def _itself(value: Any) -> Any:
    return value


_KEYS: dict[type, Callable[[Any], Any]] = {
    **dict.fromkeys((str, int, float, bool, bytes, type(None), type(Table)), _itself),
    pl.DataFrame: _frame_key,
    pl.Expr: pl.Expr.__getstate__,
    list: lambda items: tuple([key_of(item) for item in items]),
    tuple: lambda items: tuple([key_of(item) for item in items]),
    dict: lambda items: tuple([(name, key_of(item)) for name, item in items.items()]),
    pl.Series: lambda values: (values.name, str(values.dtype), repr(values.to_list())),
}


def key_of(value: Any) -> Any:
    """A hashable stand-in for the content of a value; a KeyError if its content is not seen."""
    known = _KEYS.get(type(value))
    if known is None and isinstance(value, (BaseModel, pl.DataType, pl.datatypes.DataTypeClass)):
        return repr(value)
    return _KEYS[type(value)](value) if known is None else known(value)


def remembered(function: Callable[..., Any], kind: Any = None) -> Callable[..., Any]:
    """Call a function once per content of its arguments; its errors are remembered too."""
    known: dict[Any, tuple[Any, Exception | None]] = {}
    kind = kind or function

    @wraps(function)
    def look_up(*args: Any, **more: Any) -> Any:
        args = tuple([list(arg) if type(arg) in _ONCE else arg for arg in args])
        try:
            key = hash((kind, key_of(args), key_of(more) if more else ()))
        except Exception:  # noqa: BLE001  (a function within an expression, for example)
            return function(*args, **more)
        found = known.get(key)
        if found is None:
            try:
                found = (function(*args, **more), None)
            except Exception as error:  # noqa: BLE001  (raised below, each time)
                found = (None, error)
            if isinstance(found[0], pl.DataFrame):
                found[0].__dict__.setdefault("key", key)
            known[key] = found
        value, error = found
        if error is not None:
            raise error
        return value

    return look_up


def remember() -> None:
    """Remember from now on, in this process."""
    for name in _EAGER:
        setattr(pl.DataFrame, name, remembered(getattr(pl.DataFrame, name), name))
    pl.concat = remembered(pl.concat)
    pl.LazyFrame.collect = _collect(pl.LazyFrame.collect)
    check = data_schemas.table.check_rows
    Table.create_empty = classmethod(cache(Table.create_empty.__func__))
    Table.validate = classmethod(remembered(Table.validate.__func__))
    checked = remembered(lambda frame, table: check(frame, table, "A part"))
    data_schemas.table.check_rows = store.check_rows = lambda frame, table, _: checked(frame, table)
    load, write = data_schemas.table.load_part, data_schemas.table.write_part

    def encode(frame: pl.DataFrame, table: type[Table]) -> bytes:
        sink = pa.BufferOutputStream()
        write(frame, table, sink)
        return sink.getvalue().to_pybytes()

    encoded = remembered(encode)
    decoded = remembered(lambda content, table: load(pa.BufferReader(content), table, "A part"))
    for module in (store, registry):
        module.write_part = lambda frame, table, sink: sink.write(encoded(frame, table))
    store.load_part = lambda source, table, _: decoded(source.read(), table)

    read, put = remembered(pl.read_parquet), remembered(_to_parquet(pl.DataFrame.write_parquet))

    def read_parquet(path: Path, **more: Any) -> pl.DataFrame:
        return read(path.read_bytes(), **more)

    pl.read_parquet = read_parquet
    pl.DataFrame.write_parquet = lambda frame, path: path.write_bytes(put(frame))

    def scan(opened: Any, paths: Any, table: type[Table]) -> pl.LazyFrame:
        files = [Path("/", opened.path(path)) for path in paths]
        frames = [decoded(file.read_bytes(), table) for file in files]
        return pl.concat(frames).lazy()

    parts.scan_parts = scan
    for module, name in (
        (plan, "load_questions"),
        (plan, "questions_hash"),
        (plan, "load_spec"),
        (plan.yaml, "safe_dump"),
        (records, "read_stored_config"),
    ):
        setattr(module, name, remembered(getattr(module, name)))


def _to_parquet(write: Callable[..., None]) -> Callable[[pl.DataFrame], bytes]:
    def encode(frame: pl.DataFrame) -> bytes:
        sink = io.BytesIO()
        write(frame, sink)
        return sink.getvalue()

    return encode


def _collect(real: Callable[..., Any]) -> Callable[..., Any]:
    known: dict[bytes, Any] = {}

    def collect(self: pl.LazyFrame, **_: Any) -> Any:
        plan_and_data = self.__getstate__()
        if plan_and_data not in known:
            known[plan_and_data] = real(self)
        return known[plan_and_data]

    return collect
