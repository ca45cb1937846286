"""Tiny students as folders and as versions of a model, to be served."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from qcrd_core.config.models import ScratchWeights
from qcrd_core.data.answers import AnswerSpec
from qcrd_core.data.spec import Columns
from qcrd_core.registry.registry import Version
from qcrd_core.store.store import Store
from qcrd_core.student.metadata import FILE, StudentMetadata
from qcrd_core.student.tokenizer import make_tokenizer
from qcrd_core.student.weights import make_student

TEXTS = [f"How many pens are in {n} boxes of {n + 3}?" for n in range(24)]
_TINY = ScratchWeights(hidden_size=32, num_layers=1)


def write_student(folder: Path, seed: int = 0, **metadata: Any) -> Path:
    """Write an untrained student whose texts depend on the seed and on the question."""
    tokenizer = make_tokenizer([*TEXTS, "predict: explain: So the answer is"], 80)
    model = make_student(_TINY, tokenizer, seed=seed)
    for weight in model.parameters():
        if weight.ndim > 1:
            weight.data.mul_(6)  # otherwise every text is the same
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    content = {
        "run_id": "tiny-1", "round": 0, "dataset": "pens", "predict_prefix": "predict: ",
        "explain_prefix": "explain: ", "max_input_tokens": 64, "max_new_tokens": 8,
        "max_rationale_tokens": 8, "columns": Columns(), "question_template": None,
        "answer": AnswerSpec(kind="text"),
    }  # fmt: skip
    about = StudentMetadata.model_validate({**content, **metadata})
    (folder / FILE).write_text(about.model_dump_json(), encoding="utf-8")
    return folder


def publish_version(store: Store, name: str, seed: int) -> None:
    """Add version `name` to model `tiny`."""
    version = Version("tiny", name, f"tiny-{name}", "2026-01-01T00:00:00+00:00", 0.5, 10)
    folder = store.local(version.folder).with_name(f"_tmp-{name}")
    write_student(folder, seed)
    store.write_json("_tmp-version.json", asdict(version))
    store.local("_tmp-version.json").rename(folder / "version.json")
    store.publish_folder(folder, version.folder)
