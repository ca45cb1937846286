"""Files that are cut, foreign, changed or hostile: refused in a sentence, or read as failures."""

import json
import random

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_schemas import Rationales
from data_schemas.table import METADATA_KEY
from qcrd_core.data.importing import ImportColumns, import_file
from qcrd_core.data.spec import load_spec
from qcrd_core.errors import QcrdError
from qcrd_core.inspect.find import find_rows
from qcrd_core.inspect.summary import summarize
from qcrd_core.inspect.terminal import found_text, summary_text
from qcrd_core.inspect.validate import validate_store
from qcrd_core.inspect.view import View
from qcrd_core.run.paths import RunPaths
from qcrd_core.store.store import Store
from tests.support.synthetic_run import (
    GENERATION,
    HOSTILE,
    RUN_ID,
    Shape,
    write_synthetic_run,
)

FOLDER = f"datasets/word_problems/rationales/generation={GENERATION}"
CONTROLS = {"\x1b", "\x9b", "\x00", "\r", "\u202e"}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    store = Store(str(folder / "store"), folder / "scratch")
    write_synthetic_run(store, Shape(num_train=20, num_test=5, num_rounds=2, steps_per_round=2))
    # Most files of a run, each of which 200 validations would read again.
    store.delete(RunPaths(RUN_ID).metrics)
    return store


def _cut(content, chance):
    return content[: chance.randrange(len(content))]


def _flipped(content, chance):
    changed = bytearray(content)
    for _ in range(chance.randint(1, 20)):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _noise(_, chance):
    return b"PAR1" + chance.randbytes(chance.randrange(2000)) + b"PAR1"


def _rewritten(change):
    def damage(content, chance):
        table = pq.read_table(pa.BufferReader(content))
        sink = pa.BufferOutputStream()
        pq.write_table(change(table, chance), sink)
        return sink.getvalue().to_pybytes()

    damage.__name__ = change.__name__
    return damage


@_rewritten
def _without_a_column(table, chance):
    return table.drop_columns([chance.choice(table.column_names)])


@_rewritten
def _with_another_type(table, chance):
    place = chance.randrange(table.num_columns)
    values = pa.array([{"a": 1}] * table.num_rows)
    return table.set_column(place, table.column_names[place], values)


@_rewritten
def _of_another_version(table, chance):
    stored = {
        "table": "rationales",
        "version": chance.choice([0, Rationales.version + 1, 99]),
        "num_rows": table.num_rows,
    }
    return table.replace_schema_metadata({METADATA_KEY: json.dumps(stored).encode()})


@_rewritten
def _foreign(_, chance):
    return pa.table({f"column{i}": [1, 2] for i in range(chance.randint(1, 5))})


@_rewritten
def _with_huge_hostile_text(table, chance):
    texts = pa.array([(HOSTILE + "\x9b2J\r") * chance.randint(1, 2000)] * table.num_rows)
    place = table.column_names.index("rationale")
    return table.set_column(place, "rationale", texts)


DAMAGES = [_cut, _flipped, _noise, _without_a_column, _with_another_type, _of_another_version,
           _foreign, _with_huge_hostile_text]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.strip("_"))
def test_damaged_part_is_refused_in_a_sentence_or_shown_without_harm(store, damage):
    part = store.part_files(FOLDER)[0].path
    content = store.read_bytes(part)
    num_refused, said = 0, []
    for number in range(25):
        store.local(part).write_bytes(damage(content, random.Random(number)))
        try:
            texts = [
                summary_text(summarize(View(store, RUN_ID))),
                found_text(find_rows(View(store, RUN_ID), "status = 'ok'", limit=3)),
            ]
            assert not set("".join(texts)) & CONTROLS
        except QcrdError as error:
            num_refused += 1
            said.append(str(error))
        problems = [f.problem for f in validate_store(store).findings if f.path == part]
        if damage in (
            _cut,
            _noise,
            _without_a_column,
            _with_another_type,
            _of_another_version,
            _foreign,
        ):
            assert problems, number
    store.local(part).write_bytes(content)
    assert not [text for text in said if "\n" in text]
    if damage in (_cut, _noise, _foreign, _of_another_version):
        assert num_refused == 25


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    path = tmp_path_factory.mktemp("spec") / "pens.yaml"
    path.write_text(
        "name: pens\nsource: {type: files, train: pens.jsonl}\n"
        "columns: {question: question, gold_answer: label}\n"
        "answer: {kind: number, marker: The answer is}\n",
        encoding="utf-8",
    )
    return load_spec(str(path))


ODD_VALUES = [None, 7, 1e308, True, [], {}, [[]], ["a", None], "", " ", "\x00", "\ud800", HOSTILE,
              "9" * 5000, "x" * 100_000, "[", "[1", "The answer is " + "(" * 500,
              {"a": [1]}]  # fmt: skip


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".parquet"])
def test_odd_import_is_refused_in_a_sentence_or_stored_whole(tmp_path, spec, ending):
    store = Store(str(tmp_path / "store"), tmp_path / "scratch")
    columns = ImportColumns(rationales="rationales", question="question", gold_answer="label")
    said = []
    for number in range(25):
        chance = random.Random(number)
        path = tmp_path / f"rows{number}{ending}"
        path.write_bytes(_odd_file(chance, ending))
        try:
            done = import_file(store, path=path, spec=spec, split="train", columns=columns)
        except QcrdError as error:
            said.append(str(error))
        else:
            rows = store.read_table(done.folder, Rationales)
            assert rows.height == done.num_samples
            assert rows.filter(pl.col("status") == "failed").height == done.num_empty
            assert not validate_store(store).findings
    assert not [text for text in said if "\n" in text]


def _odd_file(chance, ending):
    rows = [
        {
            "question": f"How many pens are {i}?",
            "label": str(i),
            "rationales": [f"{i}. The answer is {i}."],
        }
        for i in range(1, 4)
    ]
    row = chance.choice(rows)
    row[chance.choice(list(row))] = chance.choice(ODD_VALUES)
    if ending == ".jsonl":
        content = "\n".join(json.dumps(row) for row in rows).encode()
    elif ending == ".json":
        content = json.dumps(rows).encode()
    elif ending == ".csv":
        cells = [[json.dumps(value) for value in row.values()] for row in rows]
        content = ("question,label,rationales\n" + "\n".join(map(",".join, cells))).encode()
    else:
        frame = pl.DataFrame([{k: json.dumps(v) for k, v in row.items()} for row in rows])
        sink = pa.BufferOutputStream()
        pq.write_table(frame.to_arrow(), sink)
        content = sink.getvalue().to_pybytes()
    if chance.random() < 0.4:
        content = chance.choice([_cut, _flipped, _noise])(content, chance)
    return content
