"""The file system behind a store: opened by URL, named without secrets, errors in one line.

Credentials come from the environment or a profile, never from the URL: it is stored with the run
and shown. Options behind a `?` are not shown either.
"""

import contextlib
import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from qcrd_core.errors import StoreError

# With AWS's standard back-off this outlasts about ten seconds without a network, and gives up an
# endpoint that accepts connections and stays silent after half a minute.
_ATTEMPTS = 5
# What pyarrow's S3 says of a network that is down or a server that is overloaded, and the errors of
# a network file system whose server is away.
_PASSING = re.compile(
    r"AWS Error (NETWORK_CONNECTION|SLOW_DOWN|THROTTLING|SERVICE_UNAVAILABLE|INTERNAL_FAILURE|"
    r"REQUEST_TIMEOUT)\b|HTTP status 5\d\d"
)
_PASSING_ERRNOS = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT})
_COPY_BYTES = 16 * 1024 * 1024
# Up to the last @: a pasted secret may hold characters that should have been escaped.
_CREDENTIALS = re.compile(r"(?<=://)[^/@?]*:.*@")


def open_file_system(url: str) -> tuple[fs.FileSystem, str]:
    """Open the file system that a URL names; nothing is created in it.

    Args:
        url: Local path, `file://` URL or object-store URL with pyarrow's options behind a `?`.

    Returns:
        The file system and the URL's path in it.

    Raises:
        StoreError: If the URL names no known kind of store or holds credentials, or if a bucket's
            region cannot be asked for.
    """
    if _CREDENTIALS.search(url):
        msg = (
            f"run.store cannot hold credentials; got {without_secrets(url)}. Set AWS_ACCESS_KEY_ID "
            "and AWS_SECRET_ACCESS_KEY, or use a profile."
        )
        raise StoreError(msg)
    full = url if "://" in url else Path(url).expanduser().absolute().as_uri()
    try:
        opened, root = fs.FileSystem.from_uri(full)
    except OSError as error:
        msg = f"{without_secrets(url)} must be reachable; got {describe(error)}."
        raise StoreError(msg) from error
    except (pa.ArrowException, ValueError) as error:
        shown = without_secrets(url)
        msg = (
            f"run.store must be a folder or an object-store URL; got {shown} "
            f"({describe(error).replace(full, shown)}). For example /data/qcrd or s3://bucket/qcrd."
        )
        raise StoreError(msg) from error
    if not root:
        msg = (
            f"run.store must name a bucket; got {without_secrets(url)}. For example "
            "s3://bucket/qcrd."
        )
        raise StoreError(msg)
    if isinstance(opened, fs.S3FileSystem):
        opened = _bounded(opened)
    return opened, root


def without_secrets(url: str) -> str:
    """Drop a URL's credentials and options; a local path stays as it is."""
    if "://" not in url:
        return url
    return _CREDENTIALS.sub("***@", url).partition("?")[0]


def describe(error: Exception) -> str:
    """Say in one line, without a full stop, what a file system answered."""
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split()).rstrip(".")


def may_pass(error: Exception) -> bool:
    """Whether a file system's error is of the kind that passes by itself."""
    return getattr(error, "errno", None) in _PASSING_ERRNOS or bool(_PASSING.search(str(error)))


def upload(source: Path, system: fs.FileSystem, path: str) -> None:
    """Copy a local file, of any size, to a file system."""
    with source.open("rb") as stream, system.open_output_stream(path) as sink:
        shutil.copyfileobj(stream, sink, _COPY_BYTES)


def download(system: fs.FileSystem, path: str, target: Path) -> None:
    """Copy a file of a file system, of any size, to a local path, making its folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with system.open_input_stream(path) as stream, target.open("wb") as sink:
        shutil.copyfileobj(stream, sink, _COPY_BYTES)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Let one thread of one process of this machine at a time work on a local path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"_tmp-lock-{path.name}").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def fsync_path(path: Path) -> None:
    """Have the disk hold a file, or a folder's names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(root: Path) -> None:
    """Have the disk hold a folder and all below it."""
    for path in root.rglob("*"):
        fsync_path(path)
    fsync_path(root)


def _bounded(opened: fs.S3FileSystem) -> fs.S3FileSystem:
    """Open the same S3 file system with few retries, and one request for a small file.

    A URL has no option for either. Without, pyarrow tries a silent endpoint thirty times, three
    seconds each, and every write takes three requests. Its own way to copy a file system (to
    another process) names what the URL said.
    """
    _, (options,) = opened.__reduce__()
    retries = fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS)
    return fs.S3FileSystem(**{**options, "retry_strategy": retries, "allow_delayed_open": True})
