"""The file system behind a store: opens URLs, hides secrets, and explains errors in one line.

Credentials come from the environment or a profile, never from the URL, because the URL is stored
with the run. Options after the URL's `?` are shown only in commands to copy, not in messages.
"""

import errno
import os
import re
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
from pyarrow import fs

from qcrd_core.config.files import expand_user
from qcrd_core.errors import StoreAwayError, StoreError
from qcrd_core.runtime.lock import lock

_Read = TypeVar("_Read")
# The pauses between attempts start at 25 ms and double. Nine attempts survive about 13 seconds
# without a network, and take less than a minute for an endpoint that accepts connections but stays
# silent.
_ATTEMPTS = 9
# Errors of pyarrow's S3 if the network is down or the server is overloaded, and errors of a network
# file system whose server does not answer.
_PASSING = re.compile(
    r"AWS Error (NETWORK_CONNECTION|SLOW_DOWN|THROTTLING|SERVICE_UNAVAILABLE|INTERNAL_FAILURE|"
    r"REQUEST_TIMEOUT)\b|HTTP status 5\d\d"
)
_PASSING_ERRNOS = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT})
# S3 reports that it is busy in a few hundred bytes. If the read asked for fewer bytes, the report
# does not fit, and pyarrow gives up immediately.
_UNFIT = "Failed to flush response stream"
_PAUSE_SECONDS = 0.1
_COPY_BYTES = 16 * 1024 * 1024
LOCK = "_tmp-lock-"
"""How the names of lock files begin."""
# Up to the last @, because a pasted secret may contain characters that should have been escaped.
_CREDENTIALS = re.compile(r"(?<=://)[^/@?]*:.*@")
# URLs of Azure and of fsspec may contain credentials as options.
_SECRET_OPTION = re.compile(r"[?&][^=&]*(key|secret|token|password)[^=&]*=", re.IGNORECASE)
# "When getting information for ...: AWS Error ACCESS_DENIED during HeadObject operation: why"
_AWS_ERROR = re.compile(r"AWS Error (\w+)(?: \([^)]*\))? during (\w+) operation: (.*)", re.DOTALL)
_REMEDIES = (
    ("TOO_SKEWED", "Set this machine's clock: it differs from the store's clock."),
    (
        "ACCESS_DENIED|ACCESS_KEY|SIGNATURE|AUTHENTICATION|TOKEN|ExpiredToken",
        "Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or the profile, and "
        "their permissions in this bucket.",
    ),
    (
        "NO_SUCH_BUCKET|Bucket '[^']*' not found",
        "Create the bucket, or append allow_bucket_creation=true to the options after the URL's "
        "`?`.",
    ),
    (
        "NETWORK_CONNECTION",
        "Check the address (endpoint_override in the URL, AWS_ENDPOINT_URL) and the network.",
    ),
)


def open_file_system(url: str) -> tuple[fs.FileSystem, str]:
    """Open the file system that a URL names; nothing is created in it.

    Args:
        url: Local path, `file://` URL, or object-store URL with pyarrow's options after a `?`.

    Returns:
        The file system and the URL's path in it.

    Raises:
        StoreError: If the kind of store is unknown, the URL contains credentials, or a bucket's
            region cannot be found out.
    """
    if _CREDENTIALS.search(url) or ("://" in url and _SECRET_OPTION.search(url)):
        msg = (
            f"run.store cannot contain credentials; got {without_secrets(url)}. Set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use a profile."
        )
        raise StoreError(msg)
    try:
        full = url if "://" in url else expand_user(url).absolute().as_uri()
        opened, root = fs.FileSystem.from_uri(full)
    except OSError as error:
        msg = (
            f"{without_secrets(url)} could not be reached: {describe(error)}. Check its address "
            "and the network."
        )
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
    return _CREDENTIALS.sub("***@", url) if "://" not in url else split_options(url)[0]


def split_options(url: str) -> tuple[str, str]:
    """Split a URL into the place and the options with their `?`; a local path has no options."""
    if "://" not in url:
        return url, ""
    place, mark, options = _CREDENTIALS.sub("***@", url).partition("?")
    return place, mark + options


def describe(error: Exception) -> str:
    """Describe a file system's error in one line, without a full stop."""
    text = getattr(error, "strerror", None) or str(error)
    if isinstance(error, FileNotFoundError):  # fsspec's error contains only the path
        text = os.strerror(errno.ENOENT)
    found = _AWS_ERROR.search(text)
    if found is not None:
        text = f"{found[1]} from {found[2]}: {found[3]}"
    return " ".join(text.split()).rstrip(".")


def access_error(error: Exception, what: str, action: str) -> StoreError:
    """Explain a file system's error to the user.

    Args:
        error: The error that it raised.
        what: Path or URL, in the user's terms.
        action: What failed, as a participle: `read`, `written`, `deleted`.

    Returns:
        The error to raise; a `StoreAwayError` if it may pass by itself.
    """
    kind = StoreAwayError if may_pass(error) else StoreError
    return kind(f"{what} could not be {action}: {describe(error)}.{_remedy(error, what)}")


def is_access_error(error: Exception) -> bool:
    """Whether an error comes from the file system, and does not show that the file is damaged."""
    # For a damaged file, Arrow and polars raise an OSError without a number.
    return getattr(error, "errno", None) is not None or "AWS Error" in str(error)


def may_pass(error: Exception) -> bool:
    """Whether a file system's error may pass by itself."""
    return getattr(error, "errno", None) in _PASSING_ERRNOS or bool(_PASSING.search(str(error)))


def read_whole(system: fs.FileSystem, path: str) -> bytes:
    """Read a whole file of a file system."""

    def read() -> bytes:
        with system.open_input_stream(path) as stream:
            return bytes(stream.read())

    return _patiently(read)


def upload(source: Path, system: fs.FileSystem, path: str) -> None:
    """Copy a local file, of any size, to a file system."""
    with source.open("rb") as stream, system.open_output_stream(path) as sink:
        shutil.copyfileobj(stream, sink, _COPY_BYTES)


def download(system: fs.FileSystem, path: str, target: Path) -> None:
    """Copy a file of a file system, of any size, to a local path, and make its folder."""

    def copy() -> None:
        with system.open_input_stream(path) as stream, target.open("wb") as sink:
            shutil.copyfileobj(stream, sink, _COPY_BYTES)

    target.parent.mkdir(parents=True, exist_ok=True)
    _patiently(copy)


def alone(path: Path) -> AbstractContextManager[bool]:
    """Lock a local path: one thread of one process on this machine works on it at a time."""
    return lock(path.with_name(f"{LOCK}{path.name}"))


def fsync_path(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(root: Path) -> None:
    """Flush a folder and everything below it to disk."""
    for path in root.rglob("*"):
        fsync_path(path)
    fsync_path(root)


def _patiently(read: Callable[[], _Read]) -> _Read:
    for attempt in range(_ATTEMPTS):
        try:
            return read()
        except OSError as error:
            if _UNFIT not in str(error):
                raise
            time.sleep(_PAUSE_SECONDS * 2**attempt)
    return read()


def _remedy(error: Exception, what: str) -> str:
    for kinds, remedy in _REMEDIES:
        if re.search(kinds, str(error)):
            return f" {remedy}"
    is_of_user = "://" not in what or isinstance(error, FileNotFoundError)
    return "" if is_of_user else " Check its address, bucket and credentials."


def _bounded(opened: fs.S3FileSystem) -> fs.S3FileSystem:
    """Open the same S3 file system with few retries, and one request per small file.

    A URL has no option for either. By default, pyarrow tries a silent endpoint thirty times, three
    seconds each, and every write takes three requests.
    """
    # Pickling a file system yields the options that pyarrow parsed from the URL.
    _, (options,) = opened.__reduce__()
    # AWS's "standard" strategy stops all retries when a seventh of all requests have failed.
    retries = fs.AwsDefaultS3RetryStrategy(max_attempts=_ATTEMPTS)
    return fs.S3FileSystem(**{**options, "retry_strategy": retries, "allow_delayed_open": True})
