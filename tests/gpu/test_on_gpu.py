"""The same on a GPU as on a CPU: the loss, what a student writes, a round, a whole run."""

import json
from pathlib import Path

import pytest
import torch

from data_schemas import Rationales
from qcrd_core.config.method import LossSection
from qcrd_core.runtime.processes import run_job
from qcrd_core.student.decoding import DecodeOptions, write
from qcrd_core.student.model import wrap
from qcrd_core.student.tokenizer import make_tokenizer
from qcrd_core.student.weights import load_model
from qcrd_core.training.batches import collate
from qcrd_core.training.objective import QcrdObjective
from tests.support.distillation import open_run, qcrd, settings_for, taught_teacher, write_settings
from tests.support.jobs import multiply_on_gpu
from tests.support.slow_objective import make_draws, make_examples
from tests.support.tiny_models import MAKE
from tests.support.training import NO_DROPOUT, losses, open_tiny, prepare, settings, train, weights

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]

PROMPTS = [f"explain: {number} + {number * number}{' + 2' * (number % 4)}" for number in range(16)]
SELECTIONS = [
    {"pos_select": "min", "neg_select": "max"},
    {"pos_select": "softmin", "neg_select": "mean"},
    {"neg_loss": "softplus", "neg_tokens": "after_divergence"},
]


def _loss_and_gradient(kind, loss, device, dtype):
    examples = make_examples()
    objective = QcrdObjective(wrap(MAKE[kind]()), loss, max_buckets=2).to(device, dtype)
    batch = collate(examples, 0, 1, make_draws(len(examples)))
    value, _ = objective(batch.to(torch.device(device)))
    value.backward()
    gradient = [
        weight.grad.flatten().double().cpu()
        for weight in objective.parameters()
        if weight.grad is not None
    ]
    return value.item(), torch.cat(gradient)


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("options", SELECTIONS, ids=["min-max", "softmin-mean", "pairwise"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-4), (torch.bfloat16, 5e-2)],
    ids=["float32", "bfloat16"],
)
def test_loss_and_gradient_are_those_of_the_cpu(kind, options, dtype, tolerance):
    loss = LossSection(delta=20.0, **options)
    value, gradient = _loss_and_gradient(kind, loss, "cpu", torch.float32)
    on_gpu, gradient_on_gpu = _loss_and_gradient(kind, loss, "cuda", dtype)
    assert on_gpu == pytest.approx(value, rel=tolerance)
    assert (gradient_on_gpu - gradient).norm() < 2 * tolerance * gradient.norm()


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("temperature", [None, 1.5], ids=["greedy", "sampled"])
def test_student_writes_the_texts_of_the_cpu(kind, temperature):
    tokenizer = make_tokenizer([*PROMPTS, "= 4"], 60)
    model = MAKE[kind](len(tokenizer))
    options = DecodeOptions(16, batch_size=5, sampling_temperature=temperature, seed=1)
    texts = {}
    for device in ("cpu", "cuda"):
        written = write(model.to(device), tokenizer, PROMPTS, options, _ignore)
        texts[device] = [text.text for text in written]
    # A draw may fall on the boundary of two tokens, and rounding differs.
    same = sum(a == b for a, b in zip(texts["cpu"], texts["cuda"], strict=True))
    assert same >= len(PROMPTS) - 1


def test_jobs_are_forked_and_each_uses_the_gpu(tmp_path):
    for value in (1, 2):
        result = run_job(multiply_on_gpu, {"value": value}, log=tmp_path / "job.log").value
        assert result["sum"] == 8 * value
        assert result["is_forked"]


@pytest.mark.parametrize("kind", MAKE)
def test_rounds_in_bfloat16_follow_those_in_float32(tmp_path, kind):
    student, curves = {"model": {**NO_DROPOUT, "architecture": kind}}, {}
    for precision in ("float32", "bfloat16"):
        training = {"precision": precision}
        context = open_tiny(settings(tmp_path / precision, student=student, training=training))
        prepare(context)
        for round_ in range(2):
            train(context, round_)
        curves[precision] = losses(context, 0) + losses(context, 1)
        folder = context.store.local(context.paths.student(1))
        assert {tensor.dtype for tensor in weights(context, 1).values()} == {torch.float32}
        load_model(folder)
    assert curves["bfloat16"] == pytest.approx(curves["float32"], rel=0.05)
    assert curves["bfloat16"][-1] < curves["bfloat16"][0]


@pytest.mark.parametrize("kind", MAKE)
def test_whole_run_in_bfloat16(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    with taught_teacher() as engine:
        content = settings_for(tmp_path, engine, training={"precision": "bfloat16"})
        content["student"]["model"]["architecture"] = kind
        done = qcrd("run", "--config", write_settings(tmp_path, content))
    assert done.returncode == 0, done.stderr
    context = open_run(content)
    negatives = context.store.read_table(context.paths.negatives(2), Rationales)
    assert set(negatives["source"]) == {"student"}
    result = json.loads(Path(context.store.local(context.paths.result)).read_text())
    assert result["test"]["num_questions"] == 8


def _ignore(event):
    del event
