"""Write a file or folder that a user named: under another name first, and never over anything.

with new_target(Path("answers.csv"), "--output") as temporary:
    frame.write_csv(temporary)
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from qcrd_core.config.files import is_plain_text
from qcrd_core.errors import ConfigError, DataError


@contextlib.contextmanager
def new_target(target: Path, option: str) -> Iterator[Path]:
    """Let the block write to a temporary path, which takes its name when the block succeeds.

    Args:
        target: A new file or folder.
        option: The argument that named it, for messages.

    Yields:
        A path beside the target. It is deleted if the block fails.

    Raises:
        ConfigError: If the target exists, even as a link that leads nowhere.
        DataError: If it cannot be written.
    """
    _check_new(target, option)
    temporary = target.with_name(f"_tmp-{os.getpid()}-{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _check_new(target, option)  # the block may have taken hours
        temporary.rename(target)
    except OSError as error:
        msg = f"{target} could not be written: {error.strerror or error}. Nothing is left of it."
        raise DataError(msg) from error
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink(missing_ok=True)


def _check_new(target: Path, option: str) -> None:
    if not is_plain_text(str(target)):
        msg = f"{option} must be a name in UTF-8; got {str(target)!r}. Choose another name."
        raise ConfigError(msg)
    if os.path.lexists(target):
        msg = f"{option} must be a new file or folder; {target} exists. Delete it or name another."
        raise ConfigError(msg)
