"""The store: a local folder or an object store, through one code path (pyarrow file systems).

Layout below the root:

    datasets/<name>/questions/part-*.parquet     questions that came with an import
    datasets/<name>/rationales/generation=<fingerprint>/part-*.parquet + generation.json
    datasets/<name>/condensed/generation=<fingerprint>/       the same for rewrites of rationales
    runs/<run_id>/...            one run: config, questions, votes, scores, metrics, student, report
    models/<name>/<version>/     promoted students

Rules that make the store crash-safe without a database:

1. A file is complete or absent: it is written under a temporary name, fsynced and renamed. A put of
   an object store is atomic by itself, so its content is complete before the put begins.
2. Parts are immutable and named after the keys they hold, so a repeated shard overwrites itself.
3. Readers never see temporary files (names that start with `_tmp`).
4. A folder (a checkpoint) is complete if its `DONE` file exists: it is written last, with the hash
   of every file, and deleted first.
"""

import contextlib
import json
import logging
import shutil
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import pyarrow as pa
from pyarrow import fs
from pydantic import Field, RootModel
from pydantic_core import to_jsonable_python

from data_schemas.table import SchemaMismatchError, Table, check_rows, load_part, write_part
from qcrd_core.config.base import InnerPath
from qcrd_core.config.files import Shape, check_ordinary, parse_json
from qcrd_core.errors import DataError, StoreError
from qcrd_core.ids import bytes_hash, content_hash, file_hash
from qcrd_core.store.filesystem import (
    LOCK,
    access_error,
    alone,
    download,
    fsync_path,
    fsync_tree,
    open_file_system,
    read_whole,
    split_options,
    upload,
)

logger = logging.getLogger(__name__)

DONE = "DONE"
_TEMPORARY = "_tmp"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Done(RootModel[Annotated[dict[InnerPath, Sha256], Field(min_length=1)]]):
    """Content of a published folder's `DONE`: the hash of each of its files."""


@dataclass(frozen=True)
class StoredFile:
    """A file of a store."""

    path: str
    """Relative to the store's root."""
    num_bytes: int
    mtime_ns: int
    """When it was last written, in ns since 1970; 0 if the store does not report it."""

    @property
    def modified(self) -> datetime:
        """When it was last written, UTC."""
        return datetime.fromtimestamp(self.mtime_ns / 1e9, UTC)


class Store:
    """Files and typed tables below one root.

    All paths given to its methods are relative to the root, with `/` between their parts.
    """

    def __init__(self, url: str, scratch: Path) -> None:
        """Open a store; nothing is created until something is written.

        Args:
            url: Local path, `file://` URL, or object-store URL such as `s3://bucket/prefix`, with
                pyarrow's options after a `?`.
            scratch: Local folder that mirrors checkpoints of an object store.

        Raises:
            StoreError: If the kind of store is unknown, or the URL contains credentials.
        """
        self.file_system, self._root = open_file_system(url)
        self.is_local = isinstance(self.file_system, fs.LocalFileSystem)
        place, self._options = split_options(url)
        self._url = place.rstrip("/")
        self.scratch = scratch.absolute()
        self._mirror = self.scratch / "mirror" / content_hash(url)
        self._has_root = False

    def __str__(self) -> str:
        """The URL without its options."""
        return self._url

    def url(self, rel: str = "") -> str:
        """A path as a command takes it: the URL with its options, which contain no secrets."""
        return f"{self._url}/{rel}".rstrip("/") + self._options

    def shown(self, rel: str) -> str:
        """A path for people to read: an absolute local path, or the URL without its options."""
        return str(self.local(rel)) if self.is_local else self._shown(rel)

    def local(self, rel: str) -> Path:
        """The local copy of a path: the path itself, or an object store's mirror."""
        return Path(self._root, rel) if self.is_local else self._mirror / rel

    def check_writable(self) -> None:
        """Write and delete a probe.

        Raises:
            StoreError: If either fails.
        """
        # List first: if the store does not answer, a listing fails sooner than a write, and S3
        # gives a reason for a failed listing but none for a failed request for one object.
        self.list("")
        probe = f"{_TEMPORARY}-probe-{uuid.uuid4().hex}"
        self.write_bytes(probe, b"qcrd")
        self.delete(probe)

    def exists(self, rel: str) -> bool:
        """Whether a file or folder exists.

        Raises:
            StoreError: If the store does not answer.
        """
        with self.explained(rel, "read"):
            return bool(self.file_system.get_file_info(self.path(rel)).type != fs.FileType.NotFound)

    def list(self, rel: str, suffix: str = "") -> list[str]:
        """Names directly below a folder, without temporary files, sorted.

        Args:
            rel: Folder; the result is empty if it is absent.
            suffix: Keep only names that end with this.

        Returns:
            Names without the folder.

        Raises:
            StoreError: If the store does not answer.
        """
        selector = fs.FileSelector(self.path(rel), allow_not_found=True)
        with self.explained(rel, "read"):
            names = [info.base_name for info in self.file_system.get_file_info(selector)]
        return sorted(n for n in names if n.endswith(suffix) and not n.startswith(_TEMPORARY))

    def files(self, rel: str) -> tuple[StoredFile, ...]:
        """All files below a folder, including temporary files and leftovers of killed writers.

        Args:
            rel: Folder; the result is empty if it is absent.

        Returns:
            Files, sorted by path.

        Raises:
            StoreError: If the store does not answer.
        """
        selector = fs.FileSelector(self.path(rel), allow_not_found=True, recursive=True)
        with self.explained(rel, "read"):
            found = [info for info in self.file_system.get_file_info(selector) if info.is_file]
        return tuple(self._stored(info) for info in sorted(found, key=lambda info: str(info.path)))

    def delete(self, rel: str) -> None:
        """Delete a file, or a folder with its content; an absent path is not an error.

        Raises:
            StoreError: If the store cannot delete it.
        """
        with self.explained(rel, "deleted"):
            info = self.file_system.get_file_info(self.path(rel))
            if info.type == fs.FileType.Directory:
                # DONE goes first, so that an interrupted deletion leaves no folder that looks
                # complete.
                if self.is_published(rel):
                    self.file_system.delete_file(f"{info.path}/{DONE}")
                self.file_system.delete_dir(info.path)
            elif info.type == fs.FileType.File:
                self.file_system.delete_file(info.path)
        if not self.is_local:
            shutil.rmtree(self.local(rel), ignore_errors=True)

    def write_bytes(self, rel: str, content: bytes | pa.Buffer) -> None:
        """Write a file whole or not at all.

        Args:
            rel: Path of the file.
            content: Its new content.

        Raises:
            StoreError: If the store cannot write it, for example because the disk is full.
        """
        path = self.path(rel)
        folder, _, name = path.rpartition("/")
        target = f"{folder}/{_TEMPORARY}-{uuid.uuid4().hex}-{name}" if self.is_local else path
        try:
            with self.explained(rel, "written"):
                self._make_folder(folder)
                with self.file_system.open_output_stream(target) as sink:
                    sink.write(content)
                if self.is_local:
                    fsync_path(Path(target))
                    Path(target).replace(path)
                    fsync_path(Path(folder))
        finally:
            # After a rename the temporary is gone; after any failure it must go too.
            if self.is_local:
                with contextlib.suppress(OSError):
                    Path(target).unlink()

    def read_bytes(self, rel: str) -> bytes:
        """Read a whole file.

        Raises:
            StoreError: If it is absent or unreadable.
        """
        with self.explained(rel, "read"):
            if self.is_local:
                check_ordinary(Path(self.path(rel)))
            return read_whole(self.file_system, self.path(rel))

    def write_json(self, rel: str, content: Any) -> None:
        """Write indented JSON of plain values, a model or a dataclass, with keys in order.

        Raises:
            StoreError: If the store cannot write it.
        """
        plain = to_jsonable_python(content)
        self.write_bytes(rel, json.dumps(plain, indent=2, ensure_ascii=False).encode() + b"\n")

    def read_json(self, rel: str, shape: type[Shape]) -> Shape:
        """Read JSON that qcrd wrote.

        Args:
            rel: Path of the file.
            shape: What it must be: a pydantic model, a dataclass, or a type of plain values.

        Returns:
            The value.

        Raises:
            StoreError: If the file is absent, not JSON, or of another shape.
        """
        return parse_json(self.read_bytes(rel), shape, self._shown(rel))

    def write_table(self, rel: str, frame: pl.DataFrame, table: type[Table]) -> None:
        """Write one immutable, validated Parquet part.

        Args:
            rel: Path that ends in `.parquet`.
            frame: The rows.
            table: Their schema.

        Raises:
            DataError: If the rows break the schema. Nothing is written.
            StoreError: If the store cannot write it.
        """
        sink = pa.BufferOutputStream()
        try:
            write_part(frame, table, sink)
        except SchemaMismatchError as error:
            raise DataError(str(error)) from error
        self.write_bytes(rel, sink.getvalue())

    def read_table(self, rel: str, table: type[Table]) -> pl.DataFrame:
        """Read a part, or all parts of a folder, as one frame.

        Args:
            rel: A `.parquet` file or a folder of parts; an absent folder is an empty table.
            table: The expected schema.

        Returns:
            Rows sorted by the primary key, each key once. If two parts hold the same key, it was
            sampled twice with one seed, and the first part's row is returned.

        Raises:
            DataError: If a part is damaged, not of this table, or newer than this qcrd.
            StoreError: If the store does not answer.
        """
        parts = [rel]
        if not rel.endswith(".parquet"):
            parts = [file.path for file in self.part_files(rel)]
        frames = [self.check_rows(self.load_part(part, table), table, part) for part in parts]
        if not frames:
            return table.create_empty()
        frame = pl.concat(frames)
        keys = table.primary_key()
        if keys and len(frames) > 1:
            unique = frame.unique(keys, keep="first", maintain_order=True).sort(keys)
            if unique.height < frame.height:
                logger.warning(
                    "%s holds %d rows whose keys are also in another part; the rows of the first "
                    "part are used",
                    self._shown(rel),
                    frame.height - unique.height,
                )
            frame = unique
        return frame

    def load_part(self, rel: str, table: type[Table]) -> pl.DataFrame:
        """Read one part without checking its rows; call `check_rows` before using them.

        Args:
            rel: The part.
            table: The expected schema.

        Returns:
            Its rows, in the table's present version.

        Raises:
            DataError: If the part is damaged, not of this table, or newer than this qcrd.
            StoreError: If the store does not answer.
        """
        # Read all bytes before parsing: a failing network must not look like a damaged part.
        content = self.read_bytes(rel)
        try:
            return load_part(pa.BufferReader(content), table, self._shown(rel))
        except SchemaMismatchError as error:
            raise DataError(str(error)) from error

    def check_rows(self, frame: pl.DataFrame, table: type[Table], rel: str) -> pl.DataFrame:
        """Check rows of this store against a table's schema.

        Args:
            frame: The rows.
            table: Their schema.
            rel: Their part or folder, for errors.

        Returns:
            The rows in the table's columns and types.

        Raises:
            DataError: If a rule is broken.
        """
        try:
            return check_rows(frame, table, self._shown(rel))
        except SchemaMismatchError as error:
            raise DataError(str(error)) from error

    def part_files(self, rel: str) -> tuple[StoredFile, ...]:
        """List the parts below a folder, sorted by path.

        Args:
            rel: A folder, which may be absent, or one part.

        Returns:
            The parts.

        Raises:
            StoreError: If the store does not answer.
        """
        path = self.path(rel)
        asked = (
            [path]
            if rel.endswith(".parquet")
            else fs.FileSelector(path, allow_not_found=True, recursive=True)
        )
        with self.explained(rel, "read"):
            found = self.file_system.get_file_info(asked)
        return tuple(
            self._stored(info)
            for info in sorted(found, key=lambda item: str(item.path))
            if info.is_file
            and info.base_name.endswith(".parquet")
            and not info.base_name.startswith(_TEMPORARY)
        )

    def _stored(self, info: fs.FileInfo) -> StoredFile:
        return StoredFile(
            path=info.path[len(self._root) :].lstrip("/"),
            num_bytes=info.size,
            mtime_ns=info.mtime_ns or 0,
        )

    def publish_folder(self, source: Path, rel: str) -> None:
        """Publish a finished local folder under `rel`; readers see all of it or nothing.

        Args:
            source: Local folder on the same disk as `local(rel)`; it is moved.
            rel: The new path. An existing folder is replaced.

        Raises:
            StoreError: If the store cannot write it.
        """
        target = self.local(rel)
        with self.explained(rel, "written"):
            hashes = {
                path.relative_to(source).as_posix(): file_hash(path)
                for path in sorted(source.rglob("*"))
                if path.is_file() and path.name != DONE
            }
            _write_done(source, hashes)
            fsync_tree(source)
            self.delete(rel)
            if not self.is_local:
                self._make_folder(self.path(rel))
                for name in hashes:
                    upload(source / name, self.file_system, self.path(f"{rel}/{name}"))
                self.write_bytes(f"{rel}/{DONE}", (source / DONE).read_bytes())
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)
            fsync_path(target.parent)

    def is_published(self, rel: str) -> bool:
        """Whether `publish_folder` finished for this folder.

        Raises:
            StoreError: If the store does not answer.
        """
        return self.exists(f"{rel}/{DONE}")

    def read_done(self, rel: str) -> dict[str, str]:
        """Hashes of a published folder's files, by their path in it.

        Raises:
            StoreError: If `DONE` is absent or damaged, or names a file outside the folder.
        """
        return self.read_json(f"{rel}/{DONE}", Done).root

    def changed_files(self, rel: str) -> Iterator[tuple[str, str]]:
        """Compare a published folder with its `DONE`.

        Args:
            rel: The folder.

        Yields:
            Path and problem of each file that is missing or has another hash.

        Raises:
            StoreError: If `DONE` is absent or damaged, or a file cannot be read.
        """
        for name, digest in self.read_done(rel).items():
            path = f"{rel}/{name}"
            if not self.exists(path):
                yield path, f"is missing, although {DONE} lists it"
            elif self._hash(path) != digest:
                yield path, f"was changed: its hash differs from the one in {DONE}"

    def _hash(self, rel: str) -> str:
        if not self.is_local:
            return bytes_hash(self.read_bytes(rel))
        with self.explained(rel, "read"):
            check_ordinary(self.local(rel))
            return file_hash(self.local(rel))

    def fetch_folder(self, rel: str, *, check: bool = False) -> Path:
        """Copy a published folder to this machine, if it is not here already.

        Args:
            rel: The folder.
            check: Compare the hashes of a local folder too. A copy is always compared.

        Returns:
            A local path: the folder itself, or its mirror.

        Raises:
            StoreError: If the folder is unpublished, a download fails, or a file differs from the
                published one.
        """
        if not self.is_published(rel):
            msg = (
                f"{self._shown(rel)} must be a finished folder; got no {DONE} file. Run again to "
                "finish it."
            )
            raise StoreError(msg)
        target = self.local(rel)
        if self.is_local:
            for path, problem in self.changed_files(rel) if check else ():
                msg = f"{self._shown(path)} {problem}. Restore the folder, or delete it."
                raise StoreError(msg)
            return target
        hashes = self.read_done(rel)
        # All ranks of a training job fetch the same folder at once, so one copies and others wait.
        with self.explained(rel, f"copied to {target}"), alone(target):
            if not _has_done(target, hashes):
                self._fill(target, rel, hashes)
        return target

    def _make_folder(self, folder: str) -> None:
        """Make a local folder; for an object store only the bucket, once.

        Objects need no folders, and pyarrow would write an empty object per folder every time.
        """
        if self.is_local:
            self.file_system.create_dir(folder, recursive=True)
        elif not self._has_root:
            self.file_system.create_dir(self._root, recursive=True)
            self._has_root = True

    def _fill(self, target: Path, rel: str, hashes: dict[str, str]) -> None:
        temporary = target.with_name(f"{_TEMPORARY}-fetch-{target.name}")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        for name, digest in hashes.items():
            download(self.file_system, self.path(f"{rel}/{name}"), temporary / name)
            if file_hash(temporary / name) != digest:
                msg = (
                    f"{self._shown(rel)}/{name} must match the hash in its {DONE} file; got other "
                    "content. Delete the folder and run again."
                )
                raise StoreError(msg)
        _write_done(temporary, hashes)
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)

    @contextlib.contextmanager
    def explained(self, rel: str, action: str) -> Iterator[None]:
        """Turn an error of the file system in the block into a StoreError.

        Args:
            rel: The path that the block works on.
            action: What fails then, as a participle: `read`, `written`, `deleted`.

        Raises:
            StoreError: Instead of the file system's error.
        """
        try:
            yield
        # A name that is not UTF-8 reaches us with characters that Arrow cannot encode.
        except (OSError, pa.ArrowException, UnicodeError) as error:
            raise access_error(error, self._shown(rel), action) from error

    def path(self, rel: str) -> str:
        """A path as the store's file system names it."""
        return f"{self._root}/{rel}" if rel else self._root

    def _shown(self, rel: str) -> str:
        return f"{self._url}/{rel}"


def part_name(keys: pl.DataFrame) -> str:
    """Name a part after its keys, so that a repeated shard overwrites itself.

    Args:
        keys: The part's key columns, in any row order.

    Returns:
        File name.
    """
    rows = keys.sort(keys.columns).rows()
    return f"part-{content_hash(*(str(value) for row in rows for value in row))}.parquet"


def temporaries(files: Iterable[StoredFile]) -> dict[str, list[StoredFile]]:
    """Group the files that writers left, or still write, by their temporary file or folder.

    Locks are not among them.
    """
    found: dict[str, list[StoredFile]] = {}
    for file in files:
        names = file.path.split("/")
        for depth, name in enumerate(names, 1):
            if name.startswith(_TEMPORARY) and not name.startswith(LOCK):
                found.setdefault("/".join(names[:depth]), []).append(file)
                break
    return found


def _write_done(folder: Path, hashes: dict[str, str]) -> None:
    (folder / DONE).write_bytes(_done_bytes(hashes))


def _has_done(folder: Path, hashes: dict[str, str]) -> bool:
    done = folder / DONE
    return done.exists() and done.read_bytes() == _done_bytes(hashes)


def _done_bytes(hashes: dict[str, str]) -> bytes:
    return json.dumps(hashes, indent=2).encode()
