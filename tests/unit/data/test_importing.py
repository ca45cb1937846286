"""Foreign rationales become a generation that a run can train from."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from data_schemas import Questions, Rationales
from qcrd_core.config.run import DataSection
from qcrd_core.data.imported import read_imported
from qcrd_core.data.importing import ImportColumns, ImportSummary, import_file
from qcrd_core.data.load import load_questions
from qcrd_core.data.spec import DatasetSpec
from qcrd_core.errors import ConfigError, DataError
from qcrd_core.store.store import Store
from qcrd_core.vote.majority import vote

ROWS: list[dict[str, Any]] = [
    {"question": "1 + 1?", "label": "2", "rationales": ["So 2.", "It is 3.", "Two: 2.0"]},
    {"question": "2 + 2?", "label": "4", "rationales": ["The answer is 4. Q: 9", "", "No idea."]},
    {"question": "3 + 3?", "label": "6", "rationales": []},
]
COLUMNS = ImportColumns(question="question", gold_answer="label", rationales="rationales")


def make_spec(train: Path = Path("train.jsonl"), **changes: Any) -> DatasetSpec:
    return DatasetSpec.model_validate(
        {
            "name": "mine",
            "source": {"type": "files", "train": train},
            "columns": {"gold_answer": "label"},
            "answer": {"kind": "number", "stop": ["Q:"]},
            **changes,
        }
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"), tmp_path / "scratch")


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def import_rows(
    store: Store, folder: Path, rows: Sequence[dict[str, Any]], columns: ImportColumns = COLUMNS
) -> ImportSummary:
    path = write(folder / "foreign.jsonl", rows)
    return import_file(
        store, path=path, spec=make_spec(), split="train", columns=columns, model="gpt"
    )


def test_import_file_stores_every_rationale_and_counts_them(store: Store, tmp_path: Path) -> None:
    summary = import_rows(store, tmp_path, ROWS)
    rows = store.read_table(summary.folder, Rationales).sort("created_at", maintain_order=True)
    assert (summary.num_rows, summary.num_questions, summary.num_samples) == (3, 3, 6)
    assert (summary.num_unparsable, summary.num_empty) == (1, 1)
    assert (summary.min_samples, summary.max_samples) == (0, 3)
    assert sorted(rows["status"].to_list()) == ["failed", "no_answer", "ok", "ok", "ok", "ok"]
    assert rows["answer"].drop_nulls().sort().to_list() == ["2", "2", "3", "4"]
    assert set(rows["source"]) == {"imported"}
    assert set(rows["generation"]) == {summary.generation}
    assert set(rows["model"]) == {"gpt"}


def test_rationale_beyond_the_bound_is_stored_as_failed(store: Store, tmp_path: Path) -> None:
    rows = [{**ROWS[0], "rationales": ["1 + 1 = 2. The answer is 2", "1" * 1_000_001]}]
    summary = import_rows(store, tmp_path, rows)
    stored = store.read_table(summary.folder, Rationales).sort("sample_idx")
    assert stored["status"].to_list() == ["ok", "failed"]
    assert stored["error"][1].startswith("The text has 1,000,001 characters")


def test_import_file_keeps_raw_texts_and_cuts_only_the_rationale(
    store: Store, tmp_path: Path
) -> None:
    rows = [{"question": "2?", "label": 4, "rationales": ["By two. The answer is 4. Q: 9"]}]
    summary = import_rows(store, tmp_path, rows)
    row = store.read_table(summary.folder, Rationales).row(0, named=True)
    assert row["text"] == "By two. The answer is 4. Q: 9"
    assert (row["rationale"], row["answer_raw"]) == ("By two.", "4")


def test_import_file_writes_the_questions_of_its_split(store: Store, tmp_path: Path) -> None:
    import_rows(store, tmp_path, ROWS)
    questions = store.read_table("datasets/mine/questions", Questions)
    assert questions["gold_answer"].sort().to_list() == ["2", "4", "6"]
    assert set(questions["split"]) == {"train"}


def test_import_file_of_one_rationale_a_row_numbers_a_questions_rows(
    store: Store, tmp_path: Path
) -> None:
    rows = [
        {"input": "1 + 1?", "label": "( 1.0 + 1.0 )", "teacher_output": text}
        for text in ("The answer is (1 + 1).", "The answer is 5.")
    ]
    columns = ImportColumns(
        question="input", gold_answer="label", gold_target="label", rationales="teacher_output"
    )
    summary = import_rows(store, tmp_path, rows, columns)
    stored = store.read_table(summary.folder, Rationales)
    assert stored["sample_idx"].to_list() == [0, 1]
    assert stored["answer"].to_list() == ["2", "5"]
    question = store.read_table("datasets/mine/questions", Questions).row(0, named=True)
    assert (question["gold_answer"], question["gold_target"]) == ("2", "( 1.0 + 1.0 )")


def test_import_file_again_replaces_its_own_generation(store: Store, tmp_path: Path) -> None:
    first, second = (import_rows(store, tmp_path, ROWS) for _ in range(2))
    assert first == second
    assert len(store.list(first.folder, suffix=".parquet")) == 1


def test_import_file_of_other_content_is_another_generation(store: Store, tmp_path: Path) -> None:
    assert (
        import_rows(store, tmp_path, ROWS).generation
        != import_rows(store, tmp_path, ROWS[:2]).generation
    )


def test_imported_rationales_take_a_teachers_place(store: Store, tmp_path: Path) -> None:
    path = write(tmp_path / "foreign.jsonl", ROWS)
    rest = [{"question": "7?", "label": 7}]
    source = {
        "type": "files",
        "train": path,
        "validation": write(tmp_path / "validation.jsonl", rest),
        "test": write(tmp_path / "test.jsonl", [{"question": "8?", "label": 8}]),
    }
    spec = make_spec(source=source)
    questions = load_questions(spec, DataSection(dataset="mine"))
    columns = ImportColumns(rationales="rationales")
    summary = import_file(store, path=path, spec=spec, split="train", columns=columns)
    taken = read_imported(store, "mine", summary.generation, questions=questions, num_samples=2)
    assert taken.height == 4
    votes = vote(taken, questions, "first")
    assert votes["majority_answer"].sort().to_list() == ["2", "4"]


def test_import_file_from_parquet_and_csv_reads_lists(store: Store, tmp_path: Path) -> None:
    parquet, csv = tmp_path / "a.parquet", tmp_path / "a.csv"
    pl.DataFrame(ROWS).write_parquet(parquet)
    as_text = [{**row, "rationales": json.dumps(row["rationales"])} for row in ROWS]
    pl.DataFrame(as_text).write_csv(csv)
    for path in (parquet, csv):
        summary = import_file(store, path=path, spec=make_spec(), split="train", columns=COLUMNS)
        assert (summary.num_samples, summary.num_empty) == (6, 1)


def test_read_imported_of_an_unknown_generation_is_refused(store: Store) -> None:
    with pytest.raises(DataError, match="must name an imported generation of mine; got 'abc'"):
        read_imported(store, "mine", "abc", questions=Questions.create_empty(), num_samples=2)


def test_read_imported_for_other_questions_is_refused(store: Store, tmp_path: Path) -> None:
    summary = import_rows(store, tmp_path, ROWS)
    with pytest.raises(DataError, match="got 6 of other questions in generation"):
        read_imported(
            store,
            "mine",
            summary.generation,
            questions=Questions.create_empty(),
            num_samples=2,
        )


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        pytest.param(
            [{"question": "1?", "label": 1}], "the column rationales; got", id="no column"
        ),
        pytest.param([{**ROWS[2]}], "at least one rationale", id="no rationale at all"),
        pytest.param([{**ROWS[0], "label": "?"}], "gold answer must be a number", id="bad gold"),
        pytest.param([ROWS[0], {**ROWS[0], "label": 9}], "must agree on its gold", id="two golds"),
        pytest.param([{**ROWS[0], "question": ""}], "must not be empty", id="empty question"),
        pytest.param(
            [{"q": "1?", "rationales": ["1"]}], "the column question; got", id="no question"
        ),
        pytest.param([], "at least one row", id="empty file"),
    ],
)
def test_import_file_with_bad_rows_writes_nothing(
    store: Store, tmp_path: Path, rows: list[dict[str, Any]], sentence: str
) -> None:
    with pytest.raises(DataError, match=sentence):
        import_rows(store, tmp_path, rows)
    assert store.list("datasets") == []


def test_import_file_that_is_absent_is_refused(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "absent.jsonl"
    with pytest.raises(DataError, match="must be a readable file"):
        import_file(store, path=path, spec=make_spec(), split="train", columns=COLUMNS)


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        pytest.param(
            ImportColumns(gold_answer="label", rationales="rationales"),
            "columns.question must be named",
            id="gold without question",
        ),
        pytest.param(
            ImportColumns(question="question", choices="label", rationales="rationales"),
            r"columns\.choices must be set for answer\.kind choice, and only then",
            id="choices of numbers",
        ),
    ],
)
def test_import_file_with_columns_that_do_not_fit_is_refused(
    store: Store, tmp_path: Path, columns: ImportColumns, sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        import_rows(store, tmp_path, ROWS, columns)


def test_import_file_keeps_thoughts_apart(store: Store, tmp_path: Path) -> None:
    texts = [
        "<think>Is it 9?</think>1 + 1 = 2. The answer is 2.",
        "<think>Is it 9? The answer is 9.",
    ]
    rows = [{"question": "1 + 1?", "label": "2", "rationales": texts}]
    done = import_rows(store, tmp_path, rows)
    table = store.read_table(done.folder, Rationales)
    columns = ("text", "reasoning", "rationale", "answer", "status")
    assert table.select(columns).rows() == [
        ("1 + 1 = 2. The answer is 2.", "Is it 9?", "1 + 1 = 2.", "2", "ok"),
        (None, "Is it 9? The answer is 9.", None, None, "thought_only"),
    ]
    assert done.num_unparsable == 1


def _answers(store: Store, folder: Path, row: dict[str, Any], **columns: str) -> list[str | None]:
    named = ImportColumns(
        question="question", gold_answer="label", rationales="rationales", **columns
    )
    summary = import_rows(store, folder, [{"question": "2 + 2?", "label": "4", **row}], named)
    rows = store.read_table(summary.folder, Rationales).sort("sample_idx")
    statuses = ["no_answer" if answer is None else "ok" for answer in rows["answer"]]
    assert rows["status"].to_list() == statuses
    return rows["answer"].to_list()


@pytest.mark.parametrize(
    ("row", "columns", "expected"),
    [
        pytest.param({"said": ["5", "4.0"]}, {"answer": "said"}, ["5", "4"], id="answers"),
        pytest.param({"said": '["5", "4"]'}, {"answer": "said"}, ["5", "4"], id="a JSON list"),
        pytest.param({"said": [None, "?"]}, {"answer": "said"}, ["3", None], id="null is read"),
        pytest.param({"said": 4}, {"answer": "said"}, ["4", "4"], id="one for all"),
        pytest.param({"ok": [True, False]}, {"correct": "ok"}, ["4", None], id="truths"),
        pytest.param({"ok": "yes"}, {"correct": "ok"}, ["4", "4"], id="one truth for all"),
        pytest.param({"ok": [0, None]}, {"correct": "ok"}, ["3", "4"], id="wrong keeps its own"),
        pytest.param(
            {"ok": [True, False], "said": ["x", "7"]},
            {"correct": "ok", "answer": "said"},
            ["4", "7"],
            id="both",
        ),
    ],
)
def test_import_file_takes_what_the_file_knows_before_what_it_reads(
    store: Store,
    tmp_path: Path,
    row: dict[str, Any],
    columns: dict[str, str],
    expected: list[str | None],
) -> None:
    texts = {"rationales": ["One more, 3 pens.", "2 + 2 = 4"]}
    assert _answers(store, tmp_path, {**texts, **row}, **columns) == expected


@pytest.mark.parametrize(
    ("row", "columns", "rule"),
    [
        ({"said": ["5"]}, {"answer": "said"}, "one value per rationale; got 1 for 2"),
        ({"ok": "perhaps"}, {"correct": "ok"}, "must hold true or false; got 'perhaps'"),
        ({}, {"correct": "ok"}, "must have the column ok"),
    ],
)
def test_import_file_refuses_what_does_not_say_it(
    store: Store, tmp_path: Path, row: dict[str, Any], columns: dict[str, str], rule: str
) -> None:
    with pytest.raises(DataError, match=rule):
        _answers(store, tmp_path, {"rationales": ["3", "4"], **row}, **columns)


def test_import_file_needs_gold_answers_to_know_what_is_right(store: Store, tmp_path: Path) -> None:
    columns = ImportColumns(question="question", rationales="rationales", correct="ok")
    rows = [{"question": "2 + 2?", "rationales": ["4"], "ok": True}]
    with pytest.raises(ConfigError, match="must have a gold answer if --correct"):
        import_rows(store, tmp_path, rows, columns)


@pytest.mark.parametrize(
    ("escape", "text"),
    [
        ("\\ud83d", "\ufffd"),
        ("\\uDE00 x", "\ufffd x"),
        ("\\ud83d\\ude00", "\U0001f600"),
        ("\\ud83d \\\\ud83d", "\ufffd \\ud83d"),
    ],
)
@pytest.mark.parametrize("ending", ["jsonl", "json"])
def test_import_file_of_half_an_emoji_stores_a_text(
    store: Store, tmp_path: Path, escape: str, text: str, ending: str
) -> None:
    path = tmp_path / f"half.{ending}"
    row = f'{{"question": "2 + 2?", "label": "4", "rationales": ["{escape} It is 4."]}}'
    path.write_text(row if ending == "jsonl" else f"[{row}]")
    done = import_file(store, path=path, spec=make_spec(), split="train", columns=COLUMNS)
    stored = store.read_table(done.folder, Rationales)
    assert stored["text"].to_list() == [f"{text} It is 4."]
    assert stored["answer"].to_list() == ["4"]


def test_newer_settings_at_their_default_are_not_part_of_a_name() -> None:
    dumped = COLUMNS.model_dump(mode="json")
    assert set(dumped) == {
        "rationales", "question", "question_id", "gold_answer", "gold_target", "choices"
    }  # fmt: skip
    assert set(make_spec().answer.model_dump()) == {"kind", "labels", "marker", "stop"}
    assert "gold_index" not in make_spec().columns.model_dump()
    assert "answer" in ImportColumns(answer="said").model_dump()
