"""Which tests need what a machine may lack.

`gpu`, `network`, `postgres` and `namespaces` skip, with the reason. And an S3 server for whatever
wants one.
"""

import os
import subprocess
import urllib.error
import urllib.request

import pytest

from qcrd_core.runtime.openmp import passive_openmp
from tests.support.postgres import find_postgres

# As in jobs: two test processes whose threads spin would slow each other down.
os.environ.update(passive_openmp())


def pytest_collection_modifyitems(items):
    for mark, is_here, reason in (
        ("gpu", _has_gpu, "needs a CUDA device"),
        ("network", _reaches_hub, "needs the model hub"),
        ("postgres", find_postgres, "needs PostgreSQL's programs (Debian: postgresql)"),
        ("namespaces", _makes_namespaces, "needs root and the program ip (Debian: iproute2)"),
    ):
        marked = [item for item in items if item.get_closest_marker(mark)]
        if marked and not is_here():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With `--dist loadfile`, keep only integration tests together by their files.

    Those share servers and runs. They begin first, the longest files ahead; all other tests go
    one by one to whichever process has room, so that none ends long before the other.
    """
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            is_integration = nodeid.startswith("tests/integration/")
            return super()._split_scope(nodeid) if is_integration else nodeid

    return Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def s3():
    """An S3 server, and the credentials it is asked with."""
    from tests.support.s3_server import s3_server  # seconds: only where a test asks for it

    with pytest.MonkeyPatch.context() as patch, s3_server() as server:
        patch.setenv("AWS_ACCESS_KEY_ID", "some-key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "some-secret")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield server


def _has_gpu():
    import torch  # seconds: only where a test asks for it

    return torch.cuda.is_available()


def _makes_namespaces():
    name = f"qcrd-probe-{os.getpid()}"
    try:
        for verb in ("add", "delete"):
            subprocess.run(["ip", "netns", verb, name], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def _reaches_hub():
    hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        with urllib.request.urlopen(hub, timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False
