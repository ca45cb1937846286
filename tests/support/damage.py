"""A small store with one of everything, and whatever may be wrong with a file of it."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from data_schemas import Captured, Feedback
from data_schemas.table import METADATA_KEY
from qcrd_core.config.models import ScratchWeights
from qcrd_core.config.run import load_config
from qcrd_core.data.answers import AnswerSpec
from qcrd_core.data.captured import captured_folder, feedback_folder
from qcrd_core.data.importing import ImportColumns, import_file
from qcrd_core.data.spec import Columns, load_spec
from qcrd_core.registry import registry
from qcrd_core.run.context import RunContext
from qcrd_core.run.paths import RunPaths
from qcrd_core.run.records import Result
from qcrd_core.store.store import Store
from qcrd_core.student.metadata import FILE, StudentMetadata
from qcrd_core.student.tokenizer import make_tokenizer
from qcrd_core.student.weights import make_student
from qcrd_core.vote.curation import write_mark
from tests.support.synthetic_run import CONFIG, GENERATION, RUN_ID, Shape, write_synthetic_run

PATHS = RunPaths(RUN_ID)
FIRST, CHAMPION = "first", "second"
_DEEP = 100_000
OURS = "http://127.0.0.1"
_SAMPLING = {
    "num_samples": 30.0, "num_prompt_tokens": 60.0, "num_tokens": 90.0, "seconds": 3.0,
    "num_gpus": 1.0,
}  # fmt: skip
_TINY = {"type": "scratch", "hidden_size": 16, "num_layers": 1}
_PENS = """\
name: pens
source: {type: files, train: pens.jsonl}
columns: {question: question, gold_answer: label}
answer: {kind: number, marker: The answer is}
"""


@dataclass(frozen=True)
class Site:
    """A folder with a store, the files of its user, and what lies beside them."""

    folder: Path

    @cached_property
    def store(self) -> Store:
        """The store."""
        return Store(str(self.folder / "store"), self.folder / ".qcrd/scratch")

    @cached_property
    def whole(self) -> dict[str, bytes]:
        """All files as they were made, by path."""
        return {path: (self.folder / path).read_bytes() for path in _listed(self.folder)}

    @cached_property
    def _states(self) -> dict[str, tuple[int, int]]:
        return _listed(self.folder)

    def restore(self) -> list[str]:
        """Undo all changes, and name them."""
        whole, now = self.whole, _listed(self.folder)
        changed = [
            path for path in now.keys() | whole.keys() if now.get(path) != self._states.get(path)
        ]
        for path in changed:
            target = self.folder / path
            if path in whole:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(whole[path])
                self._states[path] = _state(target)
            else:
                target.unlink()
        return sorted(changed)


def _state(path: str | Path) -> tuple[int, int]:
    stat = os.stat(path)  # noqa: PTH116  (a Path costs more than the look)
    return stat.st_mtime_ns, stat.st_size


def _listed(folder: Path) -> dict[str, tuple[int, int]]:
    found, start = {}, len(str(folder)) + 1
    for where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != ".qcrd"]
        paths = [f"{where}/{name}" for name in names if not name.startswith("_tmp-lock")]
        found |= {path[start:]: _state(path) for path in paths}
    return found


def make_site(folder: Path) -> Site:
    """Make a site: a complete run with a student, a version, a champion, marks, and an import."""
    site, store = Site(folder), Site(folder).store
    write_synthetic_run(store, Shape(num_train=6, num_test=4, num_rounds=1, steps_per_round=1))
    for file in store.part_files(PATHS.metrics):
        if not file.path.endswith(("train-round=000.parquet", "validation-round=000.parquet")):
            store.delete(file.path)
    _publish_student(store)
    result = Result(round=0, validation_accuracy=0.5, test={"accuracy": 0.6})
    store.write_json(PATHS.result, result)
    write_mark(store, "word_problems", (GENERATION, "q0001", 1), "keep", "clear")
    for dataset in ("word_problems", "pens"):
        _write_captured(store, dataset)
    for name in (FIRST, CHAMPION):
        version = registry.register(store, RUN_ID, name=name)
        registry.promote(store, version.model, name, "by hand")
    context = RunContext(load_config(_written(folder / "plan.yaml", CONFIG)), store, PATHS)
    context.write_metrics("sampling", -1, _SAMPLING)
    context.write_metrics("timing", -1, {"vote_seconds": 1.0}, part="timing-vote")
    context.write_metrics("timing", 0, {"train_seconds": 9.0}, part="timing-train")
    (folder / "pens.yaml").write_text(_PENS, encoding="utf-8")
    rows = [
        {
            "question": f"How many pens are {i}?",
            "label": str(i),
            "rationales": [f"{i}. The answer is {i}."],
        }
        for i in range(1, 13)
    ]
    (folder / "pens.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    columns = ImportColumns(rationales="rationales", question="question", gold_answer="label")
    spec = load_spec(str(folder / "pens.yaml"))
    done = import_file(store, path=folder / "pens.jsonl", spec=spec, split="train", columns=columns)
    settings = {
        "run": {"name": "pens", "store": "store"},
        "data": {"dataset": "./pens.yaml"},
        "teacher": {"model": {"type": "imported", "generation": done.generation}, "num_samples": 2},
        "discriminator": {"model": _TINY},
        "student": {"model": _TINY},
    }
    _written(folder / "run.yaml", settings)
    (folder / "beside.txt").write_text("not of the store", encoding="utf-8")
    assert site.whole
    assert site.restore() == []
    return site


def _write_captured(store: Store, dataset: str) -> None:
    """A question of the served student, and its right answer."""
    captured = pl.DataFrame([Captured.example], schema=Captured.create_empty().schema)
    store.write_table(f"{captured_folder(dataset)}/part-1.parquet", captured, Captured)
    feedback = pl.DataFrame([Feedback.example], schema=Feedback.create_empty().schema)
    store.write_table(f"{feedback_folder(dataset)}/part-1.parquet", feedback, Feedback)


def _written(path: Path, settings: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def _publish_student(store: Store) -> None:
    folder = store.local(PATHS.best_student).with_name("_tmp-student")
    tokenizer = make_tokenizer(["predict: Tom had 2 apples and got 3 more. How many?"], 60)
    make_student(ScratchWeights.model_validate(_TINY), tokenizer, seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    metadata = StudentMetadata(
        run_id=RUN_ID, round=0, dataset="word_problems", predict_prefix="predict: ",
        explain_prefix="explain: ", max_input_tokens=64, max_new_tokens=2, columns=Columns(),
        question_template=None, answer=AnswerSpec(kind="number"),
    )  # fmt: skip
    (folder / FILE).write_text(metadata.model_dump_json(), encoding="utf-8")
    (folder / "README.md").write_text("A student.", encoding="utf-8")
    store.publish_folder(folder, PATHS.best_student)


_OTHERS = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
"""Files of a student that transformers writes and reads."""
BREAKING = ("missing", "empty", "truncated", "a list", "a number", "deep", "not UTF-8")
"""After these no file is what it was."""
_VALUES: dict[str, Any] = {
    "null": None, "text": "x", "number": -1, "huge": 10**30, "nan": float("nan"), "list": [[]],
    "mapping": {"a": {}}, "outside": "../../escaped", "absolute": "/escaped",
    "null character": "a\0b",
}  # fmt: skip


def damages(path: str, content: bytes) -> Iterator[tuple[str, bytes | None]]:
    """Everything that may be wrong with a file, by name; None is a missing file."""
    yield "missing", None
    yield "empty", b""
    yield "truncated", content[: len(content) // 2]
    yield "a list", b"[]"
    yield "a number", b"7"
    yield "not UTF-8", b"\xff\xfe" + content[:40] + b"\xff"
    yield "deep", _deep(path, content)
    if path.rpartition("/")[2] in _OTHERS:
        return
    if path.endswith((".json", "/DONE")):
        yield from _changed(json.loads(content), json.dumps)
        yield "half a character", b'{"dataset": "\\ud800"}'
    elif path.endswith((".yaml", ".yml")):
        yield from _changed(yaml.safe_load(content), yaml.safe_dump)
        for text in (
            "2024-99-99",
            "!!int foo",
            "9" * 5000,
            "!!timestamp foo",
            "&a [*a]",
            '"\\ud800"',
            '"\\0"',
            "~nouser",
            _bomb(),
        ):
            yield f"value {text[:20]}", content + b"\nrun: " + text.encode()
    elif path.endswith(".jsonl"):
        for value in _VALUES.values():
            yield f"value {value!r:.20}", json.dumps({"question": value, "label": value}).encode()
        yield "half a character", b'{"question": "\\ud800", "label": "1"}'
        yield "long", json.dumps({"question": "word " * 40_000, "label": "1"}).encode()


def _deep(path: str, content: bytes) -> bytes:
    if not path.endswith(".parquet"):
        return b"[" * _DEEP
    table = pq.read_table(pa.BufferReader(content))
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({METADATA_KEY: b"[" * _DEEP}), sink)
    return sink.getvalue().to_pybytes()


def _bomb() -> str:
    lines = ["&a0 [x]", *(f"&a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))]
    return f"[{', '.join(lines)}]"


def _changed(content: Any, dump: Callable[[Any], str]) -> Iterator[tuple[str, bytes]]:
    """Each key of the content removed or renamed, and each value replaced by others."""
    for name in content:
        yield f"{name} removed", dump({k: v for k, v in content.items() if k != name}).encode()
        for kind, value in _VALUES.items():
            yield f"{name} {kind}", dump({**content, name: value}).encode()
    for kind in ("outside", "absolute", "null character"):
        yield f"key {kind}", dump({**content, _VALUES[kind]: "0" * 64}).encode()
