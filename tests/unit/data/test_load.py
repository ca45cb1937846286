"""Questions are read from every kind of source, and bad input is refused in one sentence."""

import gzip
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import polars as pl
import pyarrow as pa
import pytest

from data_schemas import Questions
from qcrd_core.config.run import DataSection
from qcrd_core.data.load import load_questions, questions_hash
from qcrd_core.data.spec import DatasetSpec, load_spec
from qcrd_core.errors import ConfigError, DataError

DATA = DataSection(dataset="mine.yaml")
ROWS = [{"question": f"What is {n} + 1?", "answer": n + 1, "id": f"q{n}"} for n in range(20)]


def make_spec(source: Mapping[str, Any], **changes: Any) -> DatasetSpec:
    columns = {"question_id": "id", "gold_answer": "answer"}
    base = {"name": "mine", "source": source, "columns": columns, "answer": {"kind": "number"}}
    return DatasetSpec.model_validate({**base, **changes})


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def files(folder: Path, rows: Sequence[Mapping[str, Any]] = ROWS) -> dict[str, Any]:
    """Three files of a split each, the first row in validation, the second in test."""
    return {
        "type": "files",
        "train": write_jsonl(folder / "train.jsonl", rows[2:]),
        "validation": write_jsonl(folder / "validation.jsonl", rows[:1]),
        "test": write_jsonl(folder / "test.jsonl", rows[1:2]),
    }


def splits(frame: pl.DataFrame) -> dict[str, str]:
    return dict(frame.select("question_id", "split").iter_rows())


def test_load_questions_from_three_files_keeps_their_splits(tmp_path: Path) -> None:
    frame = load_questions(make_spec(files(tmp_path)), DATA)
    assert frame["split"].to_list() == ["train"] * 18 + ["validation", "test"]
    assert frame.row(0, named=True) == {
        "question_id": "q2",
        "split": "train",
        "question": "What is 2 + 1?",
        "choices": None,
        "gold_answer": "3",
        "gold_target": None,
        "template": None,
        "messages": None,
    }
    Questions.validate(frame)


def write_array(path: Path) -> None:
    path.write_text(json.dumps(ROWS))


def _lines() -> bytes:
    return "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def write_zst(path: Path) -> None:
    with pa.output_stream(str(path), compression="zstd") as stream:
        stream.write(_lines())


def write_tsv(path: Path) -> None:
    pl.DataFrame(ROWS).write_csv(path, separator="\t")


def write_wide(path: Path) -> None:
    path.write_text(pl.DataFrame(ROWS).write_csv(), encoding="utf-16")


@pytest.mark.parametrize(
    ("ending", "write"),
    [
        pytest.param("jsonl", lambda path: write_jsonl(path, ROWS), id="json lines"),
        pytest.param("json", write_array, id="json array"),
        pytest.param("csv", lambda path: pl.DataFrame(ROWS).write_csv(path), id="csv"),
        pytest.param("parquet", lambda path: pl.DataFrame(ROWS).write_parquet(path), id="parquet"),
        pytest.param("tsv", write_tsv, id="tsv"),
        pytest.param("csv", write_wide, id="csv in UTF-16"),
        pytest.param(
            "json", lambda path: path.write_text(json.dumps(ROWS), "utf-8-sig"), id="json with mark"
        ),
        pytest.param("jsonl.gz", lambda path: path.write_bytes(gzip.compress(_lines())), id="gz"),
        pytest.param("jsonl.zst", write_zst, id="zst"),
    ],
)
def test_load_questions_reads_the_same_from_every_format(
    tmp_path: Path, ending: str, write: Any
) -> None:
    write(tmp_path / f"all.{ending}")
    write_jsonl(tmp_path / "reference.jsonl", ROWS)
    frames = [
        load_questions(make_spec({"type": "files", "train": tmp_path / name}), DATA)
        for name in (f"all.{ending}", "reference.jsonl")
    ]
    assert frames[0].equals(frames[1])


def test_load_questions_of_one_file_splits_by_hash_and_keeps_splits_when_it_grows(
    tmp_path: Path,
) -> None:
    rows = [{"question": f"{n} + 1?", "answer": n, "id": f"q{n}"} for n in range(400)]
    source = {"type": "files", "train": write_jsonl(tmp_path / "all.jsonl", rows[:300])}
    before = splits(load_questions(make_spec(source), DATA))
    write_jsonl(tmp_path / "all.jsonl", rows)
    after = splits(load_questions(make_spec(source), DATA))
    assert {name: after[name] for name in before} == before
    shares = {name: list(after.values()).count(name) / 400 for name in ("validation", "test")}
    assert shares == pytest.approx({"validation": 0.1, "test": 0.2}, abs=0.05)


def write_shards(folder: Path) -> Path:
    """ROWS in three files of a folder, beside what other programs leave there."""
    folder.mkdir()
    for number, name in enumerate(("part-1", "part-2", "part-10")):
        write_jsonl(folder / f"{name}.jsonl", ROWS[number * 7 : (number + 1) * 7])
    (folder / "_SUCCESS").touch()
    (folder / "README.md").write_text("Made by a program.")
    return folder


def test_load_questions_of_shards_equals_one_file(tmp_path: Path) -> None:
    shards, whole = write_shards(tmp_path / "shards"), write_jsonl(tmp_path / "all.jsonl", ROWS)
    named = [shards / "part-1.jsonl", shards / "part-2.jsonl", shards / "part-10.jsonl"]
    reference = load_questions(make_spec({"type": "files", "train": whole}), DATA)
    for train in (shards, shards / "part-*.jsonl", named):
        frame = load_questions(make_spec({"type": "files", "train": train}), DATA)
        assert frame.equals(reference)
        assert questions_hash(frame) == questions_hash(reference)


def test_load_questions_of_shards_names_the_file_and_its_row(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards")
    write_jsonl(shards / "part-2.jsonl", [ROWS[0] | {"answer": "many"}])
    with pytest.raises(DataError, match=r"part-2\.jsonl, row 1, question q0"):
        load_questions(make_spec({"type": "files", "train": shards}), DATA)


def test_load_questions_refuses_a_folder_of_several_kinds_and_a_file_twice(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards")
    pl.DataFrame(ROWS).write_csv(shards / "all.csv")
    with pytest.raises(DataError, match=r"data files of one kind.*got \.csv and \.jsonl"):
        load_questions(make_spec({"type": "files", "train": shards}), DATA)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="got none"):
        load_questions(make_spec({"type": "files", "train": tmp_path / "empty"}), DATA)
    twice = [shards / "part-1.jsonl", shards / "part-*.jsonl"]
    with pytest.raises(DataError, match=r"named once; got .*part-1\.jsonl twice"):
        load_questions(make_spec({"type": "files", "train": twice}), DATA)


def test_load_spec_makes_every_file_of_a_list_absolute(tmp_path: Path) -> None:
    text = "name: mine\nsource: {type: files, train: [a.jsonl, b]}\nanswer: {kind: number}\n"
    (tmp_path / "mine.yaml").write_text(text)
    source = load_spec(str(tmp_path / "mine.yaml")).source
    assert source.train == (tmp_path / "a.jsonl", tmp_path / "b")  # type: ignore[union-attr]


def test_load_questions_of_few_rows_leaves_no_split_empty(tmp_path: Path) -> None:
    for count in range(3, 12):
        source = {"type": "files", "train": write_jsonl(tmp_path / "few.jsonl", ROWS[:count])}
        found = set(splits(load_questions(make_spec(source), DATA)).values())
        assert found == {"train", "validation", "test"}


def test_load_questions_without_ids_hashes_the_content(tmp_path: Path) -> None:
    spec = make_spec(files(tmp_path), columns={"gold_answer": "answer"})
    ids = load_questions(spec, DATA)["question_id"]
    assert ids.n_unique() == 20
    assert ids.equals(load_questions(spec, DATA)["question_id"])


def test_load_questions_honours_limits_in_the_sources_order(tmp_path: Path) -> None:
    data = DataSection(dataset="mine.yaml", max_train=2, max_validation=1, max_test=1)
    frame = load_questions(make_spec(files(tmp_path)), data)
    assert frame["question_id"].to_list() == ["q2", "q3", "q0", "q1"]


def test_load_questions_with_choices_shows_them_below_the_question(tmp_path: Path) -> None:
    rows = [{"question": f"{n}?", "options": ["cat", "Dog"], "answer": "b"} for n in range(3)]
    columns = {"gold_answer": "answer", "choices": "options"}
    spec = make_spec(files(tmp_path, rows), columns=columns, answer={"kind": "choice"})
    row = load_questions(spec, DATA).row(0, named=True)
    assert row["question"] == "2?\nAnswer Choices:\n(a) cat\n(b) Dog"
    assert (row["choices"], row["gold_answer"]) == (["cat", "Dog"], "Dog")


def test_load_questions_with_choices_in_columns_of_a_csv(tmp_path: Path) -> None:
    path = tmp_path / "all.csv"
    pl.DataFrame({"q": ["1?", "2?", "3?"], "a": "cat", "b": "dog", "gold": "dog"}).write_csv(path)
    columns = {"question": "q", "gold_answer": "gold", "choices": ["a", "b"]}
    spec = make_spec(
        {"type": "files", "train": path},
        columns=columns,
        answer={"kind": "choice"},
        question_template="{q} {choices}",
    )
    assert load_questions(spec, DATA)["question"][0].endswith("? (a) cat\n(b) dog")


def test_load_questions_with_target_and_template_keeps_both(tmp_path: Path) -> None:
    rows = [
        {"body": f"{n} eggs.", "ask": "Half?", "equation": f"( {n} / 2 )", "type": "division"}
        for n in range(3)
    ]
    columns = {"gold_answer": "equation", "gold_target": "equation", "template": "type"}
    spec = make_spec(files(tmp_path, rows), columns=columns, question_template="{body}\n{ask}")
    row = load_questions(spec, DATA).row(0, named=True)
    assert row["question"] == "2 eggs.\nHalf?"
    assert (row["gold_answer"], row["gold_target"]) == ("1", "( 2 / 2 )")
    assert row["template"] == "division"


def test_load_questions_warns_of_targets_that_miss_the_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"question": f"{n}?", "answer": n, "equation": "( 1 + 1 )"} for n in range(3)]
    columns = {"gold_answer": "answer", "gold_target": "equation"}
    with caplog.at_level(logging.WARNING):
        load_questions(make_spec(files(tmp_path, rows), columns=columns), DATA)
    assert "2 of 3 learned labels differ in value" in caplog.text


def test_load_questions_reads_gold_after_a_marker_and_by_number(tmp_path: Path) -> None:
    rows = [{"question": f"{n}?", "answer": "2 * 4 = 8\n#### 1,008"} for n in range(3)]
    columns = {"gold_answer": "answer", "gold_after": "####"}
    spec = make_spec(files(tmp_path, rows), columns=columns)
    assert load_questions(spec, DATA)["gold_answer"].to_list() == ["1008"] * 3
    rows = [{"question": f"{n}?", "answer": 1} for n in range(3)]
    columns = {"gold_answer": "answer", "gold_names": ["yes", "no"]}
    spec = make_spec(
        files(tmp_path, rows), columns=columns, answer={"kind": "label", "labels": ["yes", "no"]}
    )
    assert load_questions(spec, DATA)["gold_answer"].to_list() == ["no"] * 3


def test_load_questions_of_kind_text_lets_the_student_learn_the_text_as_written(
    tmp_path: Path,
) -> None:
    rows = [{"question": f"{n}?", "answer": "The Nile."} for n in range(3)]
    spec = make_spec(
        files(tmp_path, rows), columns={"gold_answer": "answer"}, answer={"kind": "text"}
    )
    row = load_questions(spec, DATA).row(0, named=True)
    assert (row["gold_answer"], row["gold_target"]) == ("the nile", "The Nile.")


def test_load_questions_of_word_problems_honours_limits() -> None:
    data = DataSection(dataset="word_problems", max_train=5, max_validation=3, max_test=2)
    frame = load_questions(load_spec("word_problems"), data)
    assert frame["split"].value_counts().sort("split")["count"].to_list() == [5, 3, 2]


def test_load_questions_without_labels_needs_the_majority_setting(tmp_path: Path) -> None:
    spec = make_spec(files(tmp_path), columns={"question_id": "id"})
    with pytest.raises(DataError, match=r"got 18 without \(first: q2, mine\)"):
        load_questions(spec, DATA)
    majority = DataSection(dataset="mine.yaml", label="majority")
    assert load_questions(spec, majority)["gold_answer"].null_count() == 20


def test_questions_hash_knows_content_but_not_order(tmp_path: Path) -> None:
    frame = load_questions(make_spec(files(tmp_path)), DATA)
    assert questions_hash(frame) == questions_hash(frame.reverse())
    changed = frame.with_columns(question=pl.col("question") + " ")
    assert questions_hash(frame) != questions_hash(changed)


@pytest.mark.parametrize(
    ("row", "changes", "sentence"),
    [
        pytest.param({"question": " "}, {}, "must not be empty; .*row 18", id="empty question"),
        pytest.param({"question": None}, {}, "must not be empty; .*row 18", id="null question"),
        pytest.param({"id": ""}, {}, "question id must not be empty", id="empty id"),
        pytest.param({"answer": "many"}, {}, "row 18, question q19", id="unparsable gold"),
        pytest.param({"answer": "1/0"}, {}, "cannot be read", id="gold without value"),
        pytest.param({"id": "q3"}, {}, "got 1 repeated ids: q3 ", id="duplicate in a split"),
        pytest.param({"id": "q1"}, {}, "got 1 repeated ids: q1 ", id="duplicate over splits"),
        pytest.param(
            {},
            {"columns": {"question_id": "nr"}},
            "must have the column nr; got answer, id, question",
            id="missing column",
        ),
        pytest.param(
            {},
            {"question_template": "{body}"},
            "must have the column body; got answer",
            id="missing column of a template",
        ),
        pytest.param(
            {},
            {"columns": {"gold_answer": "answer", "gold_after": "####"}},
            "must follow the text '####'; got no such",
            id="no marker before gold",
        ),
        pytest.param(
            {"question": "cat", "answer": 1},
            {
                "columns": {"choices": "question", "gold_answer": "answer"},
                "answer": {"kind": "choice"},
            },
            "Choices must be a list of 2 to 26 texts",
            id="no choices",
        ),
    ],
)
def test_load_questions_with_a_bad_row_is_refused(
    tmp_path: Path, row: dict[str, Any], changes: dict[str, Any], sentence: str
) -> None:
    rows = [*ROWS[:-1], {**ROWS[-1], **row}]
    with pytest.raises(DataError, match=sentence):
        load_questions(make_spec(files(tmp_path, rows), **changes), DATA)


def test_load_questions_with_many_duplicates_names_three(tmp_path: Path) -> None:
    rows = [*ROWS, *ROWS[2:]]
    with pytest.raises(DataError, match=r"got 18 repeated ids: q2, q3, q4, \.\.\. \(mine\)"):
        load_questions(make_spec(files(tmp_path, rows)), DATA)


def test_load_questions_may_keep_the_first_of_duplicates(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [*ROWS, ROWS[1], ROWS[5]]
    with caplog.at_level(logging.WARNING):
        frame = load_questions(make_spec(files(tmp_path, rows), duplicates="first"), DATA)
    assert splits(frame)["q1"] == "test"
    assert frame.height == 20
    assert "ignored 2 repeated questions" in caplog.text


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        pytest.param("a.jsonl", None, "must be a readable file; got No such file", id="absent"),
        pytest.param("a.jsonl", b"", "must hold at least one row; got none", id="empty jsonl"),
        pytest.param("a.csv", b"", "must hold at least one row", id="empty csv"),
        pytest.param("a.csv", b"id,question\n", "must hold at least one row", id="csv header only"),
        pytest.param("a.json", b"[]", "must hold at least one row", id="empty array"),
        pytest.param("a.jsonl", b'{"a": 1}\n\n{"a": \n', r"a\.jsonl, line 3", id="broken line"),
        pytest.param("a.jsonl", b"{}\n3\n", r"got int \(.*line 2", id="line is no object"),
        pytest.param("a.json", b'{"a": 1}', "must hold an array of objects", id="no array"),
        pytest.param("a.json", b"[3]", r"got int \(.*row 1", id="element is no object"),
        pytest.param("a.json", b'{"a": 1}\n{"a": 2}', r"rename it to \.jsonl", id="lines as json"),
        pytest.param("a.json", b"[" * 100_000, "must be valid JSON", id="deep json"),
        pytest.param(
            "a.jsonl",
            b'{"a": "\xff"}',
            "must be UTF-8 text; got an invalid byte at 7",
            id="no utf-8",
        ),
        pytest.param("a.parquet", b"PAR1", r"must be a whole \.parquet file", id="cut parquet"),
        pytest.param("a.csv", b'a,b\n"1,2\n3', r"must be a whole \.csv file", id="broken csv"),
        pytest.param("a.csv", b"a,b\n1,2\n3\n", "2 values.*got 1 .*row 2", id="short csv row"),
        pytest.param("a.tsv", b"a\tb\n1\t2\t3\n", r"must be a whole \.tsv file", id="long tsv row"),
        pytest.param("a.jsonl.gz", b"PK", r"must be a whole \.gz file", id="no gzip"),
        pytest.param(
            "a.jsonl.gz", gzip.compress(b'{"a": 1}')[:12], r"whole \.gz file", id="cut gzip"
        ),
        pytest.param("a.jsonl.zst", b"PK", r"must be a whole \.zst file", id="no zstd"),
        pytest.param("a.parquet.gz", b"PK", "must end in", id="packed parquet"),
        pytest.param("a.csv", b"\xff\xfea\x00b", "must be UTF-16 text", id="half of a character"),
        pytest.param("a.xlsx", b"PK", r"must end in \.jsonl, \.json, \.csv", id="other ending"),
    ],
)
def test_load_questions_of_a_bad_file_is_refused(
    tmp_path: Path, name: str, content: bytes | None, sentence: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        load_questions(make_spec({"type": "files", "train": tmp_path / name}), DATA)


def test_load_questions_of_one_row_misses_a_split(tmp_path: Path) -> None:
    source = {"type": "files", "train": write_jsonl(tmp_path / "one.jsonl", ROWS[:1])}
    with pytest.raises(DataError, match="mine must have at least one train question; got none"):
        load_questions(make_spec(source), DATA)


def test_load_questions_with_a_local_copy_of_no_hub_set_is_refused(tmp_path: Path) -> None:
    data = DataSection(dataset="mine.yaml", path=tmp_path)
    with pytest.raises(ConfigError, match="applies only to a data set of the hub"):
        load_questions(make_spec(files(tmp_path)), data)


HUB = {"type": "hub", "repo": "some/set", "validation_size": 3, "test": ["test"]}
LOCAL_FORMS = ["saved", "plain", "parts"]


def write_copy(folder: Path, form: str) -> None:
    parts = {"train": ROWS[:15], "test": ROWS[15:]}
    if form == "saved":
        sets = {name: datasets.Dataset.from_list(rows) for name, rows in parts.items()}
        datasets.DatasetDict(sets).save_to_disk(str(folder))
        return
    (folder / "data").mkdir()
    for name, rows in parts.items():
        if form == "plain":
            write_jsonl(folder / f"{name}.jsonl", rows)
            continue
        for index, half in enumerate((rows[:4], rows[4:])):
            path = folder / "data" / f"{name}-{index:05d}-of-00002.parquet"
            pl.DataFrame(half).write_parquet(path)


@pytest.mark.parametrize("form", LOCAL_FORMS)
def test_load_questions_from_a_local_copy_of_a_hub_set(tmp_path: Path, form: str) -> None:
    write_copy(tmp_path, form)
    data = DataSection(dataset="mine.yaml", path=tmp_path)
    frame = load_questions(make_spec(HUB), data)
    assert frame["split"].value_counts().sort("split")["count"].to_list() == [12, 3, 5]
    assert frame.filter(split="test")["question_id"].to_list() == [f"q{n}" for n in range(15, 20)]


def test_load_questions_may_pool_the_splits_of_a_hub_set(tmp_path: Path) -> None:
    write_copy(tmp_path, "plain")
    source = {**HUB, "train": ["train", "test"], "test": [], "test_size": 4}
    frame = load_questions(make_spec(source), DataSection(dataset="mine.yaml", path=tmp_path))
    assert frame["split"].value_counts().sort("split")["count"].to_list() == [13, 3, 4]


@pytest.mark.parametrize(
    ("form", "changes", "sentence"),
    [
        pytest.param("plain", {"test": ["dev"]}, "a file for the split dev", id="no such file"),
        pytest.param("saved", {"test": ["dev"]}, "got train, test", id="no such saved split"),
        pytest.param("plain", {"validation_size": 15}, "must leave training", id="size too large"),
    ],
)
def test_load_questions_from_a_bad_local_copy_is_refused(
    tmp_path: Path, form: str, changes: dict[str, Any], sentence: str
) -> None:
    write_copy(tmp_path, form)
    data = DataSection(dataset="mine.yaml", path=tmp_path)
    with pytest.raises(DataError, match=sentence):
        load_questions(make_spec({**HUB, **changes}), data)


def test_load_questions_from_a_saved_copy_that_lacks_a_file_is_refused(tmp_path: Path) -> None:
    write_copy(tmp_path, "saved")
    next((tmp_path / "train").glob("*.arrow")).unlink()
    data = DataSection(dataset="mine.yaml", path=tmp_path)
    with pytest.raises(
        DataError, match=r"must be a complete folder of `save_to_disk`; got .*\.arrow"
    ):
        load_questions(make_spec(HUB), data)


def test_load_questions_from_an_absent_local_copy_is_refused(tmp_path: Path) -> None:
    data = DataSection(dataset="mine.yaml", path=tmp_path / "absent")
    with pytest.raises(DataError, match=r"data\.path must be a folder with a copy of some/set"):
        load_questions(make_spec(HUB), data)


def test_load_questions_from_an_unreachable_hub_names_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"some/set could not be read from the hub.*data\.path"):
        load_questions(make_spec(HUB), DATA)
