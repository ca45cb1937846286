"""`benchmarks.gpu_claim` at tiny size: every cell is written once, and the report reads them."""

import json

import polars as pl
import pytest

from benchmarks import gpu_claim
from benchmarks.svamp_folds import NUM_FOLDS, prepare_questions, read_fold
from qcrd_core.config.models import ScratchWeights
from qcrd_core.student.tokenizer import make_tokenizer
from qcrd_core.student.weights import make_student

NUM_QUESTIONS = 20


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    texts = []
    for split, has_rationales in (("train", True), ("valid", False), ("test", False)):
        rows = []
        for number in range(NUM_QUESTIONS):
            right, wrong = f"{number} + 2 = {number + 2}", f"{number} + 2 = {number + 3}"
            row = {"question": f"What is {number} plus 2?", "label": str(number + 2)}
            rows.append(row | {"rationales": [right, right, wrong] if has_rationales else None})
            texts += [row["question"], f"{right}. The answer is {number + 2}."]
        lines = "\n".join(json.dumps(row) for row in rows)
        (tmp_path / f"{split}.jsonl").write_text(lines)
    folder = tmp_path / "claim"
    prepare_questions(tmp_path, folder)
    weights = ScratchWeights(architecture="llama", hidden_size=16, num_layers=1)
    tokenizer = make_tokenizer([*texts, "explain: predict: "] * 2, 200)
    tokenizer.save_pretrained(folder / "model")
    make_student(weights, tokenizer, 0).save_pretrained(folder / "model")
    monkeypatch.setattr(gpu_claim, "FOLDER", folder)
    monkeypatch.setattr(gpu_claim, "NUM_SEEDS", 1)
    monkeypatch.setattr(gpu_claim, "MAX_TOKENS", 24)
    return folder


def test_each_question_is_tested_once_and_never_trained_on_in_its_fold(prepared):
    folds = [read_fold(prepared, number) for number in range(NUM_FOLDS)]
    tested = pl.concat([fold.test for fold in folds])["question_id"]
    assert sorted(tested) == sorted(set(tested))
    assert len(tested) == 3 * NUM_QUESTIONS
    for fold in folds:
        assert not set(fold.labels["question_id"]) & set(fold.test["question_id"])
        polarity = fold.rationales("gold")["polarity"].to_list()
        assert polarity.count("positive") == 2 * polarity.count("negative") > 0


def test_cells_are_written_once_and_reported(prepared, capsys):
    size = gpu_claim.Size(num_rounds=2, steps_per_round=1, batch_size=4)
    gpu_claim.run(prepared / "model", size, seconds=0)
    stopped = capsys.readouterr().out
    assert "run again to go on" in stopped
    gpu_claim.run(prepared / "model", size, seconds=600)
    written = {path.name: path.stat().st_mtime_ns for path in prepared.glob("answers/*.parquet")}
    assert len(written) == NUM_FOLDS * len(gpu_claim.COMPARED)

    gpu_claim.run(prepared / "model", size, seconds=600)
    gpu_claim.report()

    assert written == {p.name: p.stat().st_mtime_ns for p in prepared.glob("answers/*.parquet")}
    shown = capsys.readouterr().out
    for method in gpu_claim.COMPARED:
        assert f"{method:18} 1 seeds" in shown
