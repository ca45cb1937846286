"""Which tests need what a machine may lack: `gpu`, `network`, `postgres` skip, with the reason."""

import os
import urllib.error
import urllib.request

import pytest

from tests.support.postgres import find_postgres


def pytest_collection_modifyitems(items):
    for mark, is_here, reason in (
        ("gpu", _has_gpu, "needs a CUDA device"),
        ("network", _reaches_hub, "needs the model hub"),
        ("postgres", find_postgres, "needs PostgreSQL's programs (Debian: postgresql)"),
    ):
        marked = [item for item in items if item.get_closest_marker(mark)]
        if marked and not is_here():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=reason))


def _has_gpu():
    import torch  # seconds: only where a test asks for it

    return torch.cuda.is_available()


def _reaches_hub():
    hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        with urllib.request.urlopen(hub, timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False
