"""Where a student's weights come from, and which folders are refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM, T5ForConditionalGeneration

from qcrd_core.config.models import FolderModel, ScratchWeights
from qcrd_core.errors import ConfigError
from qcrd_core.student.tokenizer import load_tokenizer, make_tokenizer
from qcrd_core.student.weights import load_model, make_student

TOKENIZER = make_tokenizer(["explain: 2 + 2", "= 4"], 100)


def _scratch(architecture, seed=0):
    tiny = ScratchWeights(architecture=architecture, hidden_size=32, num_layers=1)
    return make_student(tiny, TOKENIZER, seed)


def _equal(first, second):
    one, other = first.state_dict(), second.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.fixture
def folder(tmp_path):
    _scratch("t5").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("architecture", ["t5", "llama"])
def test_make_student_from_scratch_depends_on_the_run_seed_alone(architecture):
    first = _scratch(architecture, seed=1)
    torch.manual_seed(99)
    assert _equal(first, _scratch(architecture, seed=1))
    assert not _equal(first, _scratch(architecture, seed=2))


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [("t5", T5ForConditionalGeneration), ("llama", LlamaForCausalLM)],
    ids=["t5", "llama"],
)
def test_make_student_from_a_saved_folder_is_the_saved_one(tmp_path, architecture, kind):
    saved = _scratch(architecture)
    saved.save_pretrained(tmp_path)
    student = make_student(FolderModel(path=tmp_path), TOKENIZER, seed=5)
    assert isinstance(student, kind)
    assert _equal(student, saved)


def test_load_model_saved_in_half_precision_is_float32(tmp_path):
    _scratch("llama").bfloat16().save_pretrained(tmp_path)
    assert {p.dtype for p in load_model(tmp_path).parameters()} == {torch.float32}


def test_load_model_with_missing_weights_names_them(folder):
    file = folder / "model.safetensors"
    weights = load_file(file)
    name = next(name for name in weights if name.endswith("wi_0.weight"))
    del weights[name]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=rf"must hold all its weights; got none for {name} \("):
        load_model(folder)


def test_load_model_with_pickled_weights_alone_is_refused(folder):
    weights = load_file(folder / "model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"must be a model folder .*no file named model\.safet"):
        load_model(folder)


def test_load_model_of_absent_folder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"must be a model folder or a hub name; got .*/none"):
        load_model(tmp_path / "none")


def test_load_model_with_weights_cut_short_is_refused(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ConfigError, match=r"must be a model folder .*incomplete|must be a model"):
        load_model(folder)


def test_load_model_whose_config_has_other_sizes_is_refused(folder):
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8")) | {"d_ff": 48}
    file.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"must have the sizes of its config\.json; .*\(64, 32\)"):
        load_model(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    "content", [b"", b"[]", b"7", b"[" * 100_000, b"\xff\xfe", b'{"model": 7, "d_model": "x"}']
)
def test_student_with_a_damaged_file_is_refused_in_a_sentence(folder, name, content):
    TOKENIZER.save_pretrained(folder)
    (folder / name).write_bytes(content)
    try:
        load_model(folder)
        load_tokenizer(folder)
    except ConfigError as error:
        assert "\n" not in str(error)  # noqa: PT017  (a file that is not needed may be damaged)
    else:
        assert name == "tokenizer_config.json"
