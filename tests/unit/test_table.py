"""Tables as files: what was changed on the disk is noticed."""

import json

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_schemas import Votes
from data_schemas.table import (
    METADATA_KEY,
    SchemaMismatchError,
    layout_fingerprint,
    read_part,
    write_part,
)

ROW = {
    "question_id": "q",
    "majority_answer": "4",
    "num_samples": 5,
    "num_valid": 4,
    "vote_count": 3,
    "agreement": 0.75,
    "margin": 0.5,
    "is_tie": False,
    "abstained": False,
    "gold_answer": None,
    "is_majority_correct": None,
}


def _votes(count):
    frame = pl.DataFrame([{**ROW, "question_id": f"q{i:02d}"} for i in range(count)])
    return Votes.validate(frame, cast=True)


def _bytes(count):
    sink = pa.BufferOutputStream()
    write_part(_votes(count), Votes, sink)
    return sink.getvalue().to_pybytes()


def _read(content):
    return read_part(pa.BufferReader(content), Votes, "part-1.parquet")


def test_read_part_with_any_byte_changed_is_refused_or_the_same():
    content, votes = _bytes(20), _votes(20)
    num_refused = 0
    for place in range(0, len(content), 5):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        try:
            assert _read(bytes(changed)).equals(votes), place
        except SchemaMismatchError:
            num_refused += 1
    assert num_refused > len(content) / 10


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99], ids=["empty", "half", "end-missing"])
def test_read_part_cut_short_is_refused(share):
    content = _bytes(20)
    with pytest.raises(SchemaMismatchError, match=r"part-1\.parquet must be a whole Parquet file"):
        _read(content[: int(len(content) * share)])


@pytest.mark.parametrize(
    "metadata", [b"\xff{", b'{"table": "votes"}', b"[]"], ids=["no-json", "no-version", "no-object"]
)
def test_read_part_with_damaged_metadata_is_refused(metadata):
    arrow = pq.read_table(pa.BufferReader(_bytes(1)))
    sink = pa.BufferOutputStream()
    pq.write_table(
        arrow.replace_schema_metadata({**arrow.schema.metadata, METADATA_KEY: metadata}), sink
    )
    with pytest.raises(SchemaMismatchError, match="has damaged qcrd metadata"):
        _read(sink.getvalue())


def test_read_part_of_older_version_is_migrated():
    class NewVotes(Votes):
        version = 2

        @classmethod
        def migrate(cls, frame, version):
            assert version == 1
            return frame.with_columns(majority_answer=pl.lit("migrated"))

    frame = read_part(pa.BufferReader(_bytes(2)), NewVotes, "part")
    assert frame["majority_answer"].to_list() == ["migrated"] * 2


def test_write_part_sorts_by_key_and_names_table_version_and_rows():
    sink = pa.BufferOutputStream()
    write_part(_votes(2).reverse(), Votes, sink)
    arrow = pq.read_table(pa.BufferReader(sink.getvalue()))
    stored = json.loads(arrow.schema.metadata[METADATA_KEY])
    fingerprint = layout_fingerprint(Votes)
    assert stored == {"table": "votes", "version": 1, "num_rows": 2, "fingerprint": fingerprint}
    assert arrow["question_id"].to_pylist() == ["q00", "q01"]


def test_write_part_groups_rows_so_that_a_filter_on_the_key_reads_one_group():
    sink = pa.BufferOutputStream()
    ids = pl.select(question_id="q" + pl.int_range(70_000).cast(pl.String).str.zfill(6)).to_series()
    write_part(_votes(1).drop("question_id").join(ids.to_frame(), how="cross"), Votes, sink)
    metadata = pq.ParquetFile(pa.BufferReader(sink.getvalue())).metadata
    ends = [
        (column.statistics.min, column.statistics.max)
        for column in (metadata.row_group(i).column(0) for i in range(metadata.num_row_groups))
    ]
    assert len(ends) == 3
    assert sum(low <= "q040000" <= high for low, high in ends) == 1
