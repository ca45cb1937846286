"""Files of rationales as others publish them."""

import json

import pytest

from data_schemas import Rationales
from qcrd_core.data.formats import default_columns, model_name, read_format
from qcrd_core.data.importing import ImportColumns, import_file
from qcrd_core.data.spec import load_spec
from qcrd_core.errors import ConfigError, DataError
from qcrd_core.store.store import Store

ASKED = [
    {"id": "a", "q": "Ann has 2 pens and buys 3. How many?", "gold": 5},
    {"id": "b", "q": "Ben has 9 pens and loses 4. How many?", "gold": 5},
]
OUTPUTS = [
    "2 + 3 = 5. The answer is 5.\n\nQ: Tom has 7 cups. How many?\nA: The answer is 7.",
    "9 - 4 = 5. The answer is (9 - 4).\n\nQ: There are 15 trees.\nA: The answer is 6.",
]


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return write


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "pens.yaml"
    path.write_text(
        "name: pens\nsource: {type: files, train: pens.json}\n"
        "columns: {question_id: id, question: q, gold_answer: gold}\n"
        "answer: {kind: number, marker: The answer is}\n",
        encoding="utf-8",
    )
    return load_spec(str(path))


def test_dss_outputs_join_questions_in_order_and_end_with_their_answer(write, spec, tmp_path):
    outputs, asked = write("train_CoT_0.json", OUTPUTS), write("asked.json", ASKED)
    store, columns = Store(str(tmp_path / "store"), tmp_path / "scratch"), ImportColumns()

    done = import_file(
        store, path=outputs, spec=spec, split="train", columns=columns, form="dss", asked=asked
    )

    stored = store.read_table(done.folder, Rationales)
    assert stored["question_id"].to_list() == ["a", "b"]
    assert stored["answer"].to_list() == ["5", "5"]
    assert stored["rationale"].to_list() == ["2 + 3 = 5.", "9 - 4 = 5."]
    assert stored["text"].to_list() == OUTPUTS
    assert len(store.read_json(f"{done.folder}/generation.json", dict)["questions_sha256"]) == 64


@pytest.mark.parametrize(
    ("outputs", "asked", "form", "error", "said"),
    [
        (OUTPUTS[:1], ASKED, "dss", DataError, "same number; got 1 outputs"),
        (OUTPUTS, None, "dss", ConfigError, "--questions must be given for an array"),
        (ASKED, ASKED, "dss", ConfigError, "--questions must be given for an array"),
        (ASKED, ASKED, "mcc-kd", ConfigError, "applies only to --format dss"),
        ({"a": 1}, ASKED, "dss", DataError, "must hold a JSON array"),
        ([], ASKED, "dss", DataError, "at least one item"),
    ],
    ids=["fewer", "no-questions", "both", "other-format", "object", "empty"],
)  # fmt: skip
def test_read_format_refuses_what_cannot_be_joined(write, outputs, asked, form, error, said):
    path = write("out.json", outputs)
    with pytest.raises(error, match=said):
        read_format(path, form, None if asked is None else write("asked.json", asked))


def test_dss_outputs_in_parts_are_joined_by_the_numbers_in_their_names(write, spec, tmp_path):
    asked = [{**row, "id": f"{row['id']}{n}", "q": f"{n}. {row['q']}"}
             for n in range(11) for row in ASKED]  # fmt: skip
    for number in range(11):
        write(f"train_CoT_{number}.json", [f"{number} first", f"{number} second"])
    pattern = tmp_path / "train_CoT_*.json"

    rows = read_format(pattern, "dss", write("asked.json", asked))

    texts = [f"{number} {which}" for number in range(11) for which in ("first", "second")]
    assert [row["teacher_output"] for row in rows] == texts
    assert [row["id"] for row in rows] == [row["id"] for row in asked]
    with pytest.raises(DataError, match="must fit at least one file"):
        read_format(tmp_path / "valid_*.json", "dss", None)
    store = Store(str(tmp_path / "store"), tmp_path / "scratch")
    done = import_file(
        store, path=pattern, spec=spec, split="train", columns=ImportColumns(), form="dss",
        asked=tmp_path / "asked.json",
    )  # fmt: skip
    assert (done.num_rows, done.num_questions) == (22, 22)


@pytest.mark.parametrize(
    ("form", "row", "columns"),
    [
        ("mcc-kd", {"question": "", "label": "", "rationales": []},
         {"rationales": "rationales", "question": "question", "gold_answer": "label"}),
        ("mcc-kd", {"instruction": "", "label": "", "output": []},
         {"rationales": "output", "question": "instruction", "gold_answer": "label"}),
        ("distilabel", {"instruction": "", "generation": "", "model_name": "m"},
         {"rationales": "generation", "question": "instruction"}),
        ("distilabel", {"instruction": "", "generations": [], "generation": ""},
         {"rationales": "generations", "question": "instruction"}),
        ("dss", {"question": "", "label": "", "teacher_output": ""},
         {"rationales": "teacher_output", "question": "question"}),
        ("plain", {"question": ""}, {}),
    ],
)  # fmt: skip
def test_default_columns_are_those_the_file_has(form, row, columns):
    assert default_columns(form, [row]) == columns


def test_questions_of_the_data_sets_own_file_keep_their_columns():
    row = {"question": "", "choices": [], "teacher_output": ""}
    assert default_columns("dss", [row], joined=True) == {"rationales": "teacher_output"}


def test_model_name_is_the_one_of_all_rows():
    assert model_name([{"model_name": "m"}, {"model_name": "m"}]) == "m"
    assert model_name([{"model_name": "m"}, {"model_name": "n"}]) is None
    assert model_name([{}]) is None


def test_import_takes_the_formats_columns_and_model_and_those_that_are_named(write, spec, tmp_path):
    rows = [{"instruction": "1 + 1?", "generation": "So 2.", "model_name": "m", "gold": 2}]
    store, path = Store(str(tmp_path / "store"), tmp_path / "scratch"), write("rows.json", rows)

    done = import_file(
        store,
        path=path,
        spec=spec,
        split="train",
        columns=ImportColumns(gold_answer="gold"),
        form="distilabel",
    )

    identity = store.read_json(f"{done.folder}/generation.json", dict)
    assert identity["columns"]["rationales"] == "generation"
    assert identity["columns"]["gold_answer"] == "gold"
    assert identity["model"] == "m"


def test_import_without_a_column_of_rationales_says_which_there_are(write, spec, tmp_path):
    store = Store(str(tmp_path / "store"), tmp_path / "scratch")
    path = write("rows.json", [{"q": "1 + 1?", "said": "So 2."}])

    with pytest.raises(ConfigError, match=r"has q, said \(format plain\). Name one with"):
        import_file(store, path=path, spec=spec, split="train", columns=ImportColumns())
