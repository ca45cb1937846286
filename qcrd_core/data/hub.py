"""Rows of a Hugging Face hub data set, or of a local copy of it.

`datasets` is imported when a hub data set is asked for, and only then.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qcrd_core.data.files import ENDINGS, Row, read_rows
from qcrd_core.data.spec import HubSource
from qcrd_core.errors import DataError


def hub_rows(source: HubSource, path: Path | None) -> dict[str, list[Row]]:
    """Read all splits that a source names.

    Args:
        source: What to read.
        path: Local copy: a folder of `datasets.save_to_disk`, or a folder with a file a split,
            `<split>.jsonl|json|csv|parquet` or the hub's own `<split>-*.parquet`, in it or in its
            `data` or configuration folder. Null: the hub.

    Returns:
        Rows by the source's own split names.

    Raises:
        DataError: If the hub cannot be reached or has no such data set, or a split is absent.
    """
    names = (*source.train, *source.validation, *source.test)
    if path is None:
        return _pick(_from_hub(source), names, source.repo)
    if not path.is_dir():
        msg = f"data.path must be a folder with a copy of {source.repo}; got {path}."
        raise DataError(msg)
    if (path / "dataset_dict.json").is_file():
        return _pick(_from_disk(path), names, str(path))
    return {name: _split_rows(path, name, source) for name in names}


def _from_hub(source: HubSource) -> Any:
    import datasets

    known = (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError)
    try:
        return datasets.load_dataset(source.repo, source.config, revision=source.revision)
    except known as error:
        detail = " ".join(str(error).split())[:200]
        msg = (
            f"The data set {source.repo} must be readable from the hub; got {detail} "
            f"({type(error).__name__}). Without the hub, set data.path to a local copy of it."
        )
        raise DataError(msg) from error


def _from_disk(path: Path) -> Any:
    import datasets

    try:
        return datasets.load_from_disk(str(path))
    except (OSError, ValueError) as error:
        msg = f"{path} must be a whole folder of `save_to_disk`; got {error} (data.path)."
        raise DataError(msg) from error


def _pick(content: Mapping[str, Any], names: tuple[str, ...], where: str) -> dict[str, list[Row]]:
    missing = [name for name in names if name not in content]
    if missing:
        msg = (
            f"{where} must have the splits {', '.join(names)}; it has {', '.join(content)}. Name "
            "its splits in the data set's source."
        )
        raise DataError(msg)
    return {name: content[name].to_list() for name in names}


def _split_rows(path: Path, name: str, source: HubSource) -> list[Row]:
    folders = [path, path / "data", *([path / source.config] if source.config else [])]
    for folder in folders:
        whole = [folder / f"{name}{ending}" for ending in ENDINGS]
        found = [file for file in whole if file.is_file()] or sorted(
            folder.glob(f"{name}-*.parquet")
        )
        if found:
            # Two endings of one split are the same rows twice; the hub's parts belong together.
            files = found[:1] if found[0] in whole else found
            return [row for file in files for row in read_rows(file)]
    msg = (
        f"{path} must hold a file for the split {name} of {source.repo}; got none (data.path). "
        f"For example {name}.parquet or {name}.jsonl."
    )
    raise DataError(msg)
