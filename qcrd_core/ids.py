"""Hashes and seeds that are equal on every machine, in every process and in every Python version.

Python's own `hash` is salted per process, so it is not used here.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

IDENTITY_VERSION = 1
"""`schema_version` in the identity of a generation. A new version of table `rationales` does not
change it: stored samples are migrated when they are read, and stay usable."""


def content_hash(*parts: str, length: int = 16) -> str:
    """Hash strings, including their boundaries.

    Args:
        *parts: Texts; ("ab", "c") and ("a", "bc") hash differently.
        length: Hex digits to return, at most 64.

    Returns:
        Lower-case hex digits.
    """
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()[:length]


def fingerprint(content: Mapping[str, Any], *, length: int = 12) -> str:
    """Hash a JSON-able mapping independently of key order.

    Args:
        content: The values to fingerprint.
        length: Hex digits to return, at most 64.

    Returns:
        Lower-case hex digits.
    """
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return content_hash(text, length=length)


def file_hash(path: Path) -> str:
    """Hash a file's bytes.

    Args:
        path: File to read.

    Returns:
        SHA-256 as 64 hex digits.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def bytes_hash(content: bytes) -> str:
    """Hash bytes; equals `file_hash` of a file that holds them."""
    return hashlib.sha256(content).hexdigest()


def derive_seed(*parts: object) -> int:
    """Derive an independent seed, for example from (seed, question_id).

    Args:
        *parts: Values that distinguish this use of randomness from all others; compared as text.

    Returns:
        A seed in [0, 2**62), safe for torch, numpy, vLLM and an int64 column.
    """
    return int(content_hash(*(str(part) for part in parts)), 16) >> 2
