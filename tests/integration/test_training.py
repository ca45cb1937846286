"""Real DeepSpeed under torchrun's agent: rounds, exact resume, two ranks."""

import os
import signal
from pathlib import Path

import polars as pl
import pytest
from safetensors.torch import load_file

from data_schemas import Metrics, Scores
from qcrd_core.config import RunConfig
from qcrd_core.context import RunContext
from qcrd_core.datasets.spec import load_spec
from qcrd_core.processes import run_job
from qcrd_core.student.tokenizer import make_tokenizer

TRAIN = "qcrd_core.student.train:main"
TINY = {"type": "scratch", "hidden_size": 32, "ffn_size": 64, "num_layers": 1, "num_heads": 2}
SAMPLED = {"pos_select": "sample", "neg_select": "sample"}
NO_DROPOUT = {**TINY, "dropout": 0.0}


def _context(folder, student=TINY, loss=None, **training):
    content = {
        "run": {"name": "tiny", "store": str(folder / "store"), "scratch": str(folder / "scratch")},
        "data": {"dataset": "word_problems"},
        "teacher": {"model": {"type": "hub", "name": "none"}},
        "discriminator": {"model": TINY},
        "student": {"model": student},
        "loss": loss or {},
        "training": {
            "num_rounds": 2,
            "steps_per_round": 4,
            "learning_rate": 1e-3,
            "global_batch_size": 4,
            "micro_batch_size": 4,
            **training,
        },
    }
    return RunContext.open(RunConfig.model_validate(content), "tiny-run")


def _prepare(context):
    labels = [[f"q{i}", f"What is {i} plus 2?", str(i + 2)] for i in range(10)]
    rows = [
        {
            "round": round_,
            "question_id": f"q{i}",
            "source": "teacher",
            "sample_idx": k,
            "polarity": "positive" if k < 2 else "negative",
            "rationale": f"{i} + {k + 1} = {i + k + 1}.",
            "quality_score": 0.8,
            "rationale_weight": 0.8 if k < 2 else 0.2,
        }
        for round_ in range(2)
        for i in range(10)
        for k in range(3)
    ]
    frame = pl.DataFrame(rows)
    for round_ in range(2):
        part = frame.filter(pl.col("round") == round_)
        context.store.write_table(context.paths.scores(round_), part, Scores)
    texts = [text for row in labels for text in row[1:]] + frame["rationale"].to_list()
    folder = context.config.run.scratch / "tokenizer"
    make_tokenizer(texts, 200).save_pretrained(folder)
    spec = load_spec("word_problems").model_dump(mode="json")
    context.store.write_json(context.paths.dataset, spec)
    path = context.config.run.scratch / "labels.parquet"
    schema = ["question_id", "question", "label"]
    pl.DataFrame(labels, schema=schema, orient="row").write_parquet(path)
    return str(path), str(folder)


def _train(context, round_, labels, tokenizer, on_event=None):
    payload = context.payload(round=round_, labels=labels, tokenizer=tokenizer)
    log = context.config.run.scratch / "train.log"
    return run_job(TRAIN, payload, log=log, on_event=on_event)


def _weights(context, round_):
    return load_file(context.store.local(context.paths.student(round_)) / "model.safetensors")


def _equal(first, second):
    return first.keys() == second.keys() and all((first[k] == second[k]).all() for k in first)


def test_round_stopped_by_sigterm_ends_with_weights_of_uninterrupted_one(tmp_path):
    whole = _context(tmp_path / "whole", loss=SAMPLED)
    labels, tokenizer = _prepare(whole)
    for round_ in range(2):
        assert _train(whole, round_, labels, tokenizer)["interrupted"] is False

    cut = _context(tmp_path / "cut", loss=SAMPLED)
    _prepare(cut)
    _train(cut, 0, labels, tokenizer)
    seen = []

    def stop_once(event):
        seen.append(event)
        if len(seen) == 2:
            for pid in _ranks():
                os.kill(pid, signal.SIGTERM)

    first = _train(cut, 1, labels, tokenizer, stop_once)
    assert first["interrupted"] is True
    assert 4 < first["global_step"] < 8
    second = _train(cut, 1, labels, tokenizer)
    assert second.pop("peak_memory_bytes") > 0
    assert second == {**_last(whole), "interrupted": False}
    assert _equal(_weights(whole, 1), _weights(cut, 1))


def _last(context):
    metrics = context.store.read_table(context.paths.metrics_part("train", 1), Metrics)
    loss = metrics.filter(pl.col("name") == "loss").sort("global_step")
    return {"global_step": 8, "loss": loss["value"][-1]}


def _ranks():
    """The ranks: processes of this test's jobs whose parent, torchrun's agent, is a job too."""
    jobs = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"forkserver" in (folder / "cmdline").read_bytes():
                fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
                jobs[int(folder.name)] = (int(fields[1]), int(fields[3]))
        except OSError:
            continue
    agents = {pid for pid, (_, session) in jobs.items() if session == pid}
    return [pid for pid, (parent, _) in jobs.items() if parent in agents]


@pytest.mark.parametrize(
    ("zero_stage", "loss"),
    [(2, SAMPLED), (3, {}), (3, {"pos_select": "mean"})],
    ids=["2-sample", "3-min-max", "3-mean"],
)
def test_two_ranks_follow_one_process(tmp_path, zero_stage, loss):
    one = _context(tmp_path / "one", NO_DROPOUT, loss, num_rounds=1)
    labels, tokenizer = _prepare(one)
    _train(one, 0, labels, tokenizer)
    two = _context(
        tmp_path / "two",
        NO_DROPOUT,
        loss,
        num_rounds=1,
        num_processes=2,
        micro_batch_size=2,
        zero_stage=zero_stage,
    )
    _prepare(two)
    _train(two, 0, labels, tokenizer)
    first, second = _weights(one, 0), _weights(two, 0)
    assert first.keys() == second.keys()
    worst = max((first[k] - second[k]).abs().max().item() for k in first)
    assert worst < 1e-4
