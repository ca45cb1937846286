"""Real DeepSpeed under torchrun's agent: rounds, exact resume, several ranks, adapters."""

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from safetensors.torch import load_file

from qcrd_core.config.models import ScratchWeights
from qcrd_core.errors import TrainingError
from qcrd_core.student.tokenizer import load_tokenizer
from qcrd_core.student.weights import make_student
from qcrd_core.training.jobs import Trained
from tests.support.training import (
    NO_DROPOUT,
    SAMPLED,
    largest_difference,
    losses,
    open_tiny,
    prepare,
    settings,
    train,
    weights,
)

HALVES = ("encoder", "decoder")
ADAPTERS = {"rank": 4, "alpha": 16, "dropout": 0.0}
NOT_ADAPTED = {
    "shared.weight",
    *(f"{half}.block.0.layer.0.SelfAttention.relative_attention_bias.weight" for half in HALVES),
}
STATES = [
    {"zero_stage": 0},
    {"zero_stage": 2, "precision": "bfloat16", "gradient_checkpointing": True},
    {"zero_stage": 3, "cpu_offload": "optimizer_and_weights"},
]


@pytest.mark.parametrize("how", STATES, ids=["plain", "bfloat16", "offload"])
def test_round_stopped_by_sigterm_ends_with_weights_of_uninterrupted_one(tmp_path, how):
    content = {"loss": SAMPLED, "training": how}
    whole = open_tiny(settings(tmp_path / "whole", **content))
    prepare(whole)
    for round_ in range(2):
        assert not train(whole, round_).interrupted

    cut = open_tiny(settings(tmp_path / "cut", **content))
    prepare(cut)
    train(cut, 0)
    seen = []

    def stop_once(event):
        seen.append(event)
        if len(seen) == 1:  # at once: a step takes milliseconds
            for pid in _ranks():
                os.kill(pid, signal.SIGTERM)

    first = train(cut, 1, stop_once)
    assert first.interrupted
    assert 4 < first.global_step < 8
    assert train(cut, 1) == Trained(
        interrupted=False, global_step=8, loss=losses(whole, 1)[-1], is_last_round=True
    )
    assert largest_difference(weights(whole, 1), weights(cut, 1)) == 0


def _ranks():
    """The ranks: processes of this test's jobs whose parent, torchrun's agent, leads a session."""
    mine = psutil.Process().children(recursive=True)  # another's run on this machine goes on
    agents = {process.pid for process in mine if os.getsid(process.pid) == process.pid}
    return [process.pid for process in mine if process.ppid() in agents]


def test_round_without_the_one_before_is_refused_in_a_sentence(tmp_path):
    context = open_tiny(settings(tmp_path))
    prepare(context)
    with pytest.raises(TrainingError, match=r"^Round 1 must start from the finished"):
        train(context, 1)


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    """Makes runs of two rounds in one process without ZeRO, each once; and their student."""
    folder, made = tmp_path_factory.mktemp("one"), {}
    tokenizer = load_tokenizer(prepare(open_tiny(settings(folder))))
    models = {}
    for kind in ("t5", "llama"):
        scratch = ScratchWeights.model_validate({**NO_DROPOUT, "architecture": kind})
        make_student(scratch, tokenizer, 1).save_pretrained(folder / kind)
        models[kind] = {"type": "folder", "path": str(folder / kind)}

    def trained(loss, lora, kind="t5"):
        key = json.dumps([loss, lora, kind])
        if key not in made:
            student = {"model": models[kind], "lora": lora}
            made[key] = open_tiny(settings(folder / str(len(made)), loss=loss, student=student))
            prepare(made[key])
            for round_ in range(2):
                train(made[key], round_)
        return made[key]

    return SimpleNamespace(trained=trained, models=models)


def _assert_same_round(one, other, round_):
    assert losses(other, round_) == pytest.approx(losses(one, round_), abs=1e-4)
    assert largest_difference(weights(one, round_), weights(other, round_)) < 1e-4


@pytest.mark.parametrize(
    ("num_ranks", "zero_stage", "loss", "lora"),
    [
        (2, 1, {}, None),
        (2, 1, {}, ADAPTERS),
        (2, 2, SAMPLED, None),
        (2, 2, {}, ADAPTERS),
        (2, 3, {}, None),
        (2, 3, {}, ADAPTERS),
        (2, 3, {"pos_select": "mean"}, None),
        (4, 3, {}, ADAPTERS),
    ],
    ids=["2-1", "2-1-lora", "2-2-sample", "2-2-lora", "2-3", "2-3-lora", "2-3-mean", "4-3-lora"],
)
def test_ranks_follow_one_process(tmp_path, one_process, num_ranks, zero_stage, loss, lora):
    ranks = {"num_processes": num_ranks, "micro_batch_size": 4 // num_ranks}
    several = open_tiny(
        settings(
            tmp_path,
            loss=loss,
            student={"model": one_process.models["t5"], "lora": lora},
            training={**ranks, "zero_stage": zero_stage},
        )
    )
    prepare(several)
    train(several, 0)
    _assert_same_round(one_process.trained(loss, lora), several, 0)


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_gradient_checkpointing_and_offload_under_zero_3_change_nothing(
    tmp_path, one_process, kind
):
    frugal = {
        "num_processes": 2,
        "micro_batch_size": 2,
        "zero_stage": 3,
        "cpu_offload": "optimizer_and_weights",
        "gradient_checkpointing": True,
    }
    student = {"model": one_process.models[kind], "lora": ADAPTERS}
    context = open_tiny(settings(tmp_path, student=student, training=frugal))
    prepare(context)
    train(context, 0)
    _assert_same_round(one_process.trained({}, ADAPTERS, kind), context, 0)


@pytest.mark.parametrize(
    ("before", "after", "lora"),
    [
        ((2, 1), (1, 0), None),
        ((2, 2), (1, 0), ADAPTERS),
        ((2, 3), (1, 0), None),
        ((1, 0), (2, 3), None),
        ((1, 3), (2, 2), ADAPTERS),
    ],
    ids=["2x1-1x0", "2x2-1x0-lora", "2x3-1x0", "1x0-2x3", "1x3-2x2-lora"],
)
def test_next_round_goes_on_with_other_ranks_and_stage(tmp_path, one_process, before, after, lora):
    for round_, (num_ranks, zero_stage) in enumerate((before, after)):
        ranks = {"num_processes": num_ranks, "zero_stage": zero_stage, "micro_batch_size": 2}
        student = {"model": one_process.models["t5"], "lora": lora}
        context = open_tiny(settings(tmp_path, student=student, training=ranks))
        if round_ == 0:
            prepare(context)
        train(context, round_)
        _assert_same_round(one_process.trained({}, lora), context, round_)


def test_adapters_are_merged_into_the_published_student(one_process):
    context = one_process.trained({}, ADAPTERS)
    folder = context.store.local(context.paths.student(1))
    before = load_file(Path(one_process.models["t5"]["path"], "model.safetensors"))
    after = load_file(folder / "model.safetensors")
    assert before.keys() == after.keys()
    linear = {name for name, tensor in before.items() if tensor.dim() == 2} - NOT_ADAPTED
    assert {name for name in before if not torch.equal(before[name], after[name])} == linear
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
