"""The Parquet tables of qcrd: one module per table, columns described once, here.

Every table is a `dataframely.Schema`: column types, nullability, primary key and row rules are
checked when a part is written and again when it is read. `Table` adds the name and the version
that go into each file's metadata. docs/schemas.md shows all of them; `python -m data_schemas`
writes it.

Limits: this package imports polars, pyarrow, dataframely and the standard library only, so any
tool can read qcrd's tables with it and without the rest of qcrd.
"""

from data_schemas.bench import BenchAnswers, BenchCells
from data_schemas.curation import Curation
from data_schemas.metrics import Metrics
from data_schemas.polarity import Polarity
from data_schemas.predictions import Predictions
from data_schemas.questions import Questions
from data_schemas.rationales import Rationales
from data_schemas.scores import Scores
from data_schemas.table import SchemaMismatchError, Table, read_part, write_part
from data_schemas.votes import Votes

TABLES: tuple[type[Table], ...] = (
    Questions,
    Rationales,
    Votes,
    Polarity,
    Scores,
    Predictions,
    Metrics,
    BenchCells,
    BenchAnswers,
    Curation,
)

__all__ = [
    "TABLES",
    "BenchAnswers",
    "BenchCells",
    "Curation",
    "Metrics",
    "Polarity",
    "Predictions",
    "Questions",
    "Rationales",
    "SchemaMismatchError",
    "Scores",
    "Table",
    "Votes",
    "read_part",
    "write_part",
]
