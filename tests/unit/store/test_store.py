"""The store's promises: whole or absent, refused with a sentence, nothing harmed.

In a folder, on an S3 server, and through fsspec.
"""

import contextlib
import io
import json
import logging
import resource
import signal
import subprocess
import sys
import uuid

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_schemas import Predictions
from data_schemas.table import METADATA_KEY
from qcrd_core.errors import DataError, StoreError
from qcrd_core.store.store import DONE, Store, part_name

PART = "runs/a/part-1.parquet"

_KILLED_MIDWAY = """
import resource, signal, sys
from pathlib import Path
from qcrd_core.store.store import Store

signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
Store(sys.argv[1], Path(sys.argv[1])).write_bytes("runs/a/part-1.parquet", bytes(1_000_000))
"""


@pytest.fixture(params=["folder", "s3", "fsspec"])
def store(request, tmp_path):
    url = str(tmp_path / "store")
    if request.param == "s3":
        url = request.getfixturevalue("s3").new_store()
    elif request.param == "fsspec":
        url = f"fsspec+memory://{uuid.uuid4().hex}/store"
    return Store(url, tmp_path / "scratch")


@pytest.fixture
def folder(tmp_path):
    """A store in a folder, for what only a disk does."""
    return Store(str(tmp_path / "store"), tmp_path / "scratch")


def _rows(*names, text="4"):
    return pl.DataFrame(
        [
            {
                "question_id": name,
                "round": 0,
                "split": "test",
                "text": text,
                "answer": text,
                "gold_answer": None,
                "is_correct": None,
                "raw_confidence": 0.5,
                "confidence": None,
            }
            for name in names
        ],
        schema_overrides={
            "gold_answer": pl.String,
            "is_correct": pl.Boolean,
            "confidence": pl.Float64,
        },
    )


def _change_metadata(store, **change):
    table = pq.read_table(pa.BufferReader(store.read_bytes(PART)))
    content = json.loads(table.schema.metadata[METADATA_KEY]) | change
    metadata = {**table.schema.metadata, METADATA_KEY: json.dumps(content).encode()}
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(metadata), sink)
    store.write_bytes(PART, sink.getvalue())


def _publish(store, content):
    source = store.local("runs/_tmp-student")
    source.mkdir(parents=True)
    (source / "weights").write_text(content, encoding="utf-8")
    store.publish_folder(source, "runs/student")
    assert not source.exists()


@contextlib.contextmanager
def _largest_file(num_bytes):
    """A disk that fills up, for one process: a write beyond the limit fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_table_written_is_read_back_sorted_by_key(store):
    store.write_table(PART, _rows("b", "a"), Predictions)
    assert store.read_table(PART, Predictions)["question_id"].to_list() == ["a", "b"]


def test_read_table_of_absent_folder_is_empty(store):
    assert store.read_table("runs/none", Predictions).is_empty()


def test_write_table_with_duplicate_key_is_refused_and_leaves_nothing(store):
    with pytest.raises(DataError, match="primary_key"):
        store.write_table(PART, _rows("a", "a"), Predictions)
    assert store.files("runs/a") == ()


def test_write_table_with_missing_column_names_it(store):
    with pytest.raises(DataError, match=r"missing \['text'\]"):
        store.write_table(PART, _rows("a").drop("text"), Predictions)


def test_read_table_truncated_by_hand_is_refused(store):
    store.write_table(PART, _rows("a"), Predictions)
    store.write_bytes(PART, store.read_bytes(PART)[:-20])
    with pytest.raises(DataError, match=r"part-1\.parquet must be a whole Parquet file"):
        store.read_table("runs/a", Predictions)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 99}, "A newer qcrd wrote it: upgrade"),
        ({"version": 0}, "predictions version 0 cannot be migrated"),
        ({"table": "votes"}, "must be a qcrd predictions table"),
        ({"num_rows": 7}, "must have 7 rows, as its metadata says; got 1"),
    ],
    ids=["future", "past", "foreign", "rows"],
)
def test_read_table_that_is_not_what_it_should_be_is_refused(store, change, message):
    store.write_table(PART, _rows("a"), Predictions)
    _change_metadata(store, **change)
    with pytest.raises(DataError, match=message):
        store.read_table(PART, Predictions)


def test_read_table_not_written_by_qcrd_is_refused(store):
    content = io.BytesIO()
    _rows("a").write_parquet(content)
    store.write_bytes(PART, content.getvalue())
    with pytest.raises(DataError, match="Import other files with `qcrd import`"):
        store.read_table(PART, Predictions)


def test_read_table_ignores_temporaries(store):
    store.write_table(PART, _rows("a"), Predictions)
    store.write_bytes("runs/a/_tmp-x-part-2.parquet", b"half")
    assert store.read_table("runs/a", Predictions).height == 1


def test_read_table_with_a_key_in_two_parts_takes_the_first_and_says_so(store, caplog):
    store.write_table(PART, _rows("a", "b", text="1"), Predictions)
    store.write_table("runs/a/part-2.parquet", _rows("b", "c", text="2"), Predictions)
    with caplog.at_level(logging.WARNING):
        frame = store.read_table("runs/a", Predictions)
    assert frame["text"].to_list() == ["1", "1", "2"]
    assert "holds 1 rows whose keys are also in another part" in caplog.text


def test_part_name_depends_on_the_set_of_keys_alone():
    keys = pl.DataFrame({"question_id": ["a", "b"], "sample_idx": [1, 0]})
    assert part_name(keys) == part_name(keys.reverse())
    assert part_name(keys) != part_name(keys.head(1))


def test_published_folder_appears_whole_and_replaces_the_old_one(store):
    _publish(store, "old")
    _publish(store, "new")
    folder = store.fetch_folder("runs/student")
    assert (folder / "weights").read_text(encoding="utf-8") == "new"
    assert list(json.loads((folder / DONE).read_text(encoding="utf-8"))) == ["weights"]


def test_fetch_folder_that_was_not_finished_is_refused(store):
    store.write_bytes("runs/student/weights", b"half")
    with pytest.raises(StoreError, match="must be a finished folder"):
        store.fetch_folder("runs/student")


def test_check_writable_where_a_file_stands_in_the_way_is_refused(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(StoreError, match="could not be written"):
        Store(str(tmp_path / "file" / "store"), tmp_path).check_writable()


def test_store_with_unknown_scheme_is_refused(tmp_path):
    with pytest.raises(StoreError, match="must be a folder or an object-store URL"):
        Store("ftpx://host/path", tmp_path)


def test_write_that_the_disk_refuses_half_way_leaves_nothing_and_keeps_the_rest(folder):
    folder.write_bytes("runs/kept", b"kept")
    with (
        _largest_file(100_000),
        pytest.raises(StoreError, match=r"runs/big could not be written: .*File too large"),
    ):
        folder.write_bytes("runs/big", b"x" * 1_000_000)
    assert [path.name for path in folder.local("runs").iterdir()] == ["kept"]
    assert folder.read_bytes("runs/kept") == b"kept"


def test_write_by_a_process_killed_half_way_leaves_no_part(folder):
    command = [sys.executable, "-c", _KILLED_MIDWAY, str(folder)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGXFSZ
    assert [path.stat().st_size for path in folder.local("runs/a").iterdir()] == [100_000]
    assert folder.list("runs/a") == []
    assert folder.read_table("runs/a", Predictions).is_empty()


def test_publish_folder_that_the_disk_refuses_keeps_the_old_one(folder):
    _publish(folder, "old")
    source = folder.local("runs/_tmp-student")
    source.mkdir()
    (source / "weights").write_text("new", encoding="utf-8")
    with (
        _largest_file(10),
        pytest.raises(StoreError, match=r"runs/student could not be written: File too large"),
    ):
        folder.publish_folder(source, "runs/student")
    assert (folder.fetch_folder("runs/student") / "weights").read_text(encoding="utf-8") == "old"


def test_delete_of_file_folder_and_nothing_leaves_the_rest(store):
    for name in ("a/b/c", "a/d", "e"):
        store.write_bytes(f"runs/{name}", b"1")
    for name in ("runs/a/b", "runs/a/b"):
        store.delete(name)
    assert store.list("runs/a") == ["d"]
    store.delete("runs/a/d")
    assert "e" in store.list("runs")
    assert store.list("runs/a") == []


def test_list_with_suffix_leaves_out_other_names_and_temporaries(store):
    for name in ("b.json", "a.json", "c.txt", "_tmp-d.json"):
        store.write_json(f"runs/{name}", {})
    assert store.list("runs", suffix=".json") == ["a.json", "b.json"]
    assert store.list("none") == []


def test_read_json_that_is_none_is_refused(store):
    store.write_bytes("runs/config.json", b'{"half": ')
    with pytest.raises(StoreError, match=r"runs/config\.json must be valid JSON; got EOF while"):
        store.read_json("runs/config.json", dict)


def test_read_bytes_of_absent_file_is_refused(store):
    with pytest.raises(StoreError, match=r"runs/none could not be read: .*No such file"):
        store.read_bytes("runs/none")


def test_check_writable_leaves_nothing(store):
    store.check_writable()
    assert store.files("") == ()


def test_file_larger_than_one_request_is_read_back(store):
    content = bytes(range(256)) * 48_000  # 12 MB: an object store gets it in parts
    store.write_bytes("runs/large", content)
    assert store.read_bytes("runs/large") == content


def test_url_of_a_path_opens_the_same_store(store, tmp_path):
    store.write_bytes("runs/a/kept", b"1")
    assert Store(store.url(), tmp_path / "other").read_bytes("runs/a/kept") == b"1"
    assert Store(store.url("runs/a"), tmp_path / "other").read_bytes("kept") == b"1"


def test_shown_of_a_path_is_where_a_person_finds_it(folder, s3, tmp_path):
    store = Store(s3.new_store(), tmp_path / "scratch")
    assert store.shown("runs/a") == f"{store}/runs/a"
    assert "endpoint_override" not in store.shown("runs/a")
    assert folder.shown("runs/a") == str(tmp_path / "store/runs/a")
