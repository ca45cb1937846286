"""Fine-tuning files: what each trainer reads, from a run's positives and negatives."""

import json

import polars as pl
import pytest

from data_schemas import Condensed, Questions, Scores
from qcrd_core.errors import ConfigError, DataError
from qcrd_core.inspect.export_sft import export_sft
from qcrd_core.inspect.find import find_rows
from qcrd_core.inspect.view import View
from qcrd_core.run.paths import RunPaths
from qcrd_core.store.store import Store
from tests.support.synthetic_run import RUN_ID, write_synthetic_run


@pytest.fixture
def run(tmp_path):
    store = Store(str(tmp_path / "store"), tmp_path / "scratch")
    write_synthetic_run(store)
    return View(store, RUN_ID)


def _lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_sft_for_trl_holds_every_different_positive_as_a_conversation(run, tmp_path):
    target = tmp_path / "out" / "sft.jsonl"
    done = export_sft(run, target, trainer="trl", kind="sft", instruction="Think.")
    lines = _lines(target)
    positives = find_rows(run, "polarity = 'positive'", limit=1)
    assert len(lines) == done.num_rows < positives.num_rows
    texts = [(line["prompt"][0]["content"], line["completion"][0]["content"]) for line in lines]
    assert len(set(texts)) == len(texts)
    assert len({line["id"] for line in lines}) == len(texts)
    assert lines[0] == {
        "id": "q0000#2",  # of equal rationales the one with the best score
        "prompt": [{
            "role": "user",
            "content": "Think.\n\nTom had 0 apples & got 3 more. How many apples does Tom have?",
        }],
        "completion": [{
            "role": "assistant",
            "content": "Tom had 0 apples and got 3 more. 0 + 3 = 3. The answer is 3.",
        }],
    }  # fmt: skip


def test_conversation_is_exported_for_trl_with_its_turns(run, tmp_path):
    turns = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello?"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "How many?"},
    ]
    questions = run.store.read_table(run.paths.questions, Questions)
    with_turns = questions.with_columns(messages=pl.lit(json.dumps(turns)))
    run.store.write_table(run.paths.questions, with_turns, Questions)

    export_sft(run, tmp_path / "sft.jsonl", trainer="trl", kind="sft", instruction="Think.")

    turns[1]["content"] = "Think.\n\nHello?"
    assert _lines(tmp_path / "sft.jsonl")[0]["prompt"] == turns


def test_rewrites_are_exported_in_the_place_of_what_they_condense(run, tmp_path):
    row = {**Condensed.example, "question_id": "q0001", "sample_idx": 0, "rationale": "Shorter."}
    table = pl.DataFrame([row], schema=Condensed.create_empty().schema)
    run.store.write_table(run.paths.condensed, table, Condensed)
    first = find_rows(
        run, "question_id = 'q0001' and sample_idx = 0 and source = 'teacher'", limit=1
    )
    assert first.rows["polarity"].to_list() == ["positive"]

    export_sft(run, tmp_path / "sft.jsonl", trainer="trl", kind="sft")

    texts = [line["completion"][0]["content"] for line in _lines(tmp_path / "sft.jsonl")]
    assert texts.count("Shorter. The answer is 4.") == 1


def test_preference_pairs_are_a_positive_and_a_negative_of_one_question(run, tmp_path):
    target = tmp_path / "pairs.jsonl"
    done = export_sft(run, target, trainer="trl", kind="preference")
    lines = _lines(target)
    assert len(lines) == done.num_rows
    assert {tuple(line) for line in lines} == {("id", "prompt", "chosen", "rejected")}
    questions = {line["prompt"][0]["content"] for line in lines}
    assert len(questions) == done.num_questions > 30
    assert all(line["chosen"] != line["rejected"] for line in lines)
    # The questions whose vote abstained have no positive.
    assert done.num_without_pair == 60 - done.num_questions > 0


@pytest.mark.parametrize(
    ("kind", "keys"),
    [("sft", ["id", "instruction", "input", "output"]),
     ("preference", ["id", "instruction", "input", "chosen", "rejected"])],
)  # fmt: skip
def test_llama_factory_reads_alpaca_rows_and_finds_them_registered(run, tmp_path, kind, keys):
    other = {"mine": {"file_name": "mine.json"}}
    (tmp_path / "dataset_info.json").write_text(json.dumps(other), encoding="utf-8")
    export_sft(run, tmp_path / "qcrd.jsonl", trainer="llama-factory", kind=kind)
    assert list(_lines(tmp_path / "qcrd.jsonl")[0]) == keys
    info = json.loads((tmp_path / "dataset_info.json").read_text(encoding="utf-8"))
    assert info["mine"] == other["mine"]
    assert set(info["qcrd"]["columns"].values()) == set(keys) - {"id"}
    assert info["qcrd"].get("ranking", False) == (kind == "preference")


def test_polarity_comes_from_the_vote_before_a_first_round(run, tmp_path):
    run.store.delete(f"{RunPaths(RUN_ID).root}/scores")
    done = export_sft(run, tmp_path / "a.jsonl", trainer="trl", kind="sft")
    in_majority = find_rows(run, "in_majority", limit=1).num_rows
    assert 0 < done.num_rows < in_majority


def test_export_refuses_a_present_target_and_a_run_without_a_vote(run, tmp_path):
    (tmp_path / "a.jsonl").touch()
    with pytest.raises(ConfigError, match=r"must (be a new file|end in \.jsonl)"):
        export_sft(run, tmp_path / "a.jsonl", trainer="trl", kind="sft")
    run.store.delete(f"{RunPaths(RUN_ID).root}/scores")
    run.store.delete(RunPaths(RUN_ID).votes)
    with pytest.raises(DataError, match="0 positive and 0 negative rationales"):
        export_sft(run, tmp_path / "b.jsonl", trainer="trl", kind="sft")


def test_pairs_of_a_run_without_negatives_are_refused_with_what_to_do(run, tmp_path):
    folder = f"{RunPaths(RUN_ID).root}/scores"
    for name in run.store.list(folder):
        rows = run.store.read_table(f"{folder}/{name}", Scores)
        rows = rows.with_columns(polarity=pl.lit("positive").cast(rows["polarity"].dtype))
        run.store.write_table(f"{folder}/{name}", rows, Scores)
    message = r"has \d+ positive and 0 negative rationales.*Export with `--kind sft`"
    with pytest.raises(DataError, match=message):
        export_sft(run, tmp_path / "a.jsonl", trainer="trl", kind="preference")
    assert not (tmp_path / "a.jsonl").exists()
