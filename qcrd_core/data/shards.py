"""The files that a path names: one file, those of a folder, or those that fit a pattern."""

import re
from pathlib import Path

from qcrd_core.data.files import ENDINGS, kind_of
from qcrd_core.errors import DataError


def parts_of(path: Path) -> list[Path]:
    """List the files that a path names.

    Args:
        path: A file, which is then the only one; a pattern such as `train_*.json`; or a folder of
            data files.

    Returns:
        In the order of their names, with numbers in them by value: part 10 after part 9.

    Raises:
        DataError: If there is no such file, or the files of a folder are of several kinds.
    """
    if path.is_dir():
        return _files_in(path)
    if "*" not in path.name or path.exists():
        return [path]
    found = sorted(path.parent.glob(path.name), key=_by_number)
    if not found:
        msg = f"{path} must fit at least one file; got none. Check the pattern."
        raise DataError(msg)
    return found


def files_of(paths: Path | tuple[Path, ...]) -> list[Path]:
    """The files that one or several paths name, each as in `parts_of`.

    Raises:
        DataError: As `parts_of`, or if a file is named twice.
    """
    found = [
        part for path in ((paths,) if isinstance(paths, Path) else paths) for part in parts_of(path)
    ]
    seen: set[Path] = set()
    for path in found:
        if path in seen:
            msg = f"Each file must be named once; got {path} twice. Remove one of them."
            raise DataError(msg)
        seen.add(path)
    return found


def _files_in(folder: Path) -> list[Path]:
    """The data files of a folder. What begins with `_` or `.` is another program's note."""
    try:
        names = [path for path in folder.iterdir() if path.name[0] not in "_."]
    except OSError as error:
        msg = f"{folder} must be a readable folder; got {error.strerror}. Check its permissions."
        raise DataError(msg) from error
    found = sorted((path for path in names if kind_of(path)), key=_by_number)
    kinds = sorted({kind_of(path) for path in found})
    if len(kinds) != 1:
        msg = (
            f"A folder must hold data files of one kind ({', '.join(ENDINGS)}); got "
            f"{' and '.join(kinds) or 'none'} ({folder}). Name the files, or a pattern such as "
            f"{folder.name}/*.jsonl."
        )
        raise DataError(msg)
    return found


def _by_number(path: Path) -> list[tuple[int, str]]:
    pieces = re.findall(r"[0-9]+|[^0-9]+", path.name)
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in pieces]
