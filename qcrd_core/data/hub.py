"""Rows of a data set of the Hugging Face hub, or of a local copy of it.

`datasets` is imported only when a hub data set is read.
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
        source: The data set and its splits.
        path: Local copy: a folder of `datasets.save_to_disk`, or a folder with one file per split,
            `<split>.jsonl|json|csv|parquet`, or the hub's own `<split>-*.parquet`. The files may be
            in the folder, in its `data` folder or in its configuration folder. None: the hub.

    Returns:
        Rows by the source's split names.

    Raises:
        DataError: If the hub cannot be reached or has no such data set, or a split is absent.
    """
    names = (*source.train, *source.validation, *source.test)
    if path is None:
        return _pick(_from_hub(source), names, source.repo)
    if not path.is_dir():
        msg = (
            f"data.path must be a folder with a copy of {source.repo}; got {path}. Correct the "
            "path, or remove data.path to read from the hub."
        )
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
            f"The data set {source.repo} could not be read from the hub: {detail} "
            f"({type(error).__name__}). Check the network and the name, or set data.path to a "
            "local copy."
        )
        raise DataError(msg) from error


def _from_disk(path: Path) -> Any:
    import datasets

    try:
        return datasets.load_from_disk(str(path))
    except (OSError, ValueError) as error:
        msg = (
            f"{path} must be a complete folder of `save_to_disk`; got {error} (data.path). Copy "
            "the data set again."
        )
        raise DataError(msg) from error


def _pick(content: Mapping[str, Any], names: tuple[str, ...], where: str) -> dict[str, list[Row]]:
    missing = [name for name in names if name not in content]
    if missing:
        msg = (
            f"{where} must have the splits {', '.join(names)}; got {', '.join(content)}. Correct "
            "the split names in the data set's source."
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
            # Two files with different endings hold the same rows; the hub's parts belong together.
            files = found[:1] if found[0] in whole else found
            return [row for file in files for row in read_rows(file)]
    msg = (
        f"{path} must hold a file for the split {name} of {source.repo}; got none (data.path). "
        f"For example {name}.parquet or {name}.jsonl."
    )
    raise DataError(msg)
