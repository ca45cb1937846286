"""The Parquet tables of qcrd: one module per table, which describes each column.

Every table is a `dataframely.Schema`: column types, nullability, primary key and row rules are
checked when a part is written and again when it is read. `Table` adds the name and the version
that go into each file's metadata. docs/schemas.md lists all tables; `python -m data_schemas`
writes it.

Limits: this package imports only polars, pyarrow, dataframely and the standard library, so any
tool can use it to read qcrd's tables without the rest of qcrd.
"""

from data_schemas.bench import BenchAnswers, BenchCells
from data_schemas.captured import Captured
from data_schemas.condensed import Condensed
from data_schemas.curation import Curation
from data_schemas.feedback import Feedback
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
    Condensed,
    Scores,
    Predictions,
    Metrics,
    BenchCells,
    BenchAnswers,
    Curation,
    Captured,
    Feedback,
)

__all__ = [
    "TABLES",
    "BenchAnswers",
    "BenchCells",
    "Captured",
    "Condensed",
    "Curation",
    "Feedback",
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
