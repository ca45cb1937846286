"""Check this machine: what is installed, and what will work.

    print(format_checks(examine(store="runs")))

Each engine is imported in a child process with a deadline, so that a torch that crashes on import
does not take the doctor down. Nothing is built or downloaded.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil

from qcrd_core.config.files import expand_user
from qcrd_core.errors import LaunchError

Status = Literal["ok", "warn", "missing"]

_PROBE_SECONDS, _HTTP_SECONDS = 180.0, 4.0
_GIB = 2**30
_MIN_DISK_GIB, _MIN_MEMORY_GIB = 5.0, 6.0
_INSTALL = "Run `make install`."

_TORCH = """
import torch
gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
found = {"version": torch.__version__, "cuda": torch.version.cuda, "gpus": gpus}
"""
_TRANSFORMERS = "import transformers\nfound = {'version': transformers.__version__}"
_DEEPSPEED = """
import deepspeed
from deepspeed.ops.op_builder.all_ops import ALL_OPS
builders = {n: b for n, b in ALL_OPS.items() if n != "deepspeed_not_implemented"}
usable = sorted(n for n, b in builders.items() if b.is_compatible(verbose=False))
found = {"version": deepspeed.__version__, "usable": usable}
"""
_VLLM = """
import vllm
from vllm.platforms import current_platform
found = {"version": vllm.__version__, "device": current_platform.device_type}
"""


@dataclass(frozen=True)
class Check:
    """The result of one check."""

    name: str
    status: Status
    detail: str
    remedy: str = ""
    """What to do if the status is not ok."""


@dataclass(frozen=True)
class _Probe:
    """What a child process found, or why it failed."""

    found: dict[str, Any] = field(default_factory=dict)
    error: str = ""


def examine(
    store: str, *, python: Path = Path(sys.executable), vllm_python: Path | None = None
) -> list[Check]:
    """Check everything a run needs. Takes as long as the slowest engine's import.

    Args:
        store: Folder or URL of the store, whose disk is checked.
        python: Interpreter that has torch, transformers and DeepSpeed.
        vllm_python: Interpreter that has vLLM; None finds the one that a run would use.

    Returns:
        The checks, in the order a reader needs them. Missing things are reported, not raised.
    """
    looks: list[Callable[[], Check]] = [
        _python,
        lambda: _torch(_probe(python, _TORCH)),
        lambda: _transformers(_probe(python, _TRANSFORMERS)),
        lambda: _deepspeed(_probe(python, _DEEPSPEED)),
        lambda: _vllm(vllm_python),
        _gpu,
        _compiler,
        lambda: _disk(store),
        _memory,
        _prefect,
        _hub,
    ]
    # Two at a time, because imports keep a core busy and small machines have two.
    with ThreadPoolExecutor(max_workers=2) as pool:
        return list(pool.map(lambda look: look(), looks))


def format_checks(checks: list[Check]) -> str:
    """Format checks, and what will work, as text.

    Args:
        checks: From `examine`.

    Returns:
        One line per check with its remedy below it, then one line per thing that works or does not.
    """
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{check.status:<8}{check.name:<{width}}  {check.detail}")
        if check.status != "ok" and check.remedy:
            lines.append(f"{'':<8}{'':<{width}}  -> {check.remedy}")
    lines += ["", "What will work:"]
    lines += [f"  {'yes' if not why else 'no':<5}{what}{why}" for what, why in _works(checks)]
    return "\n".join(lines)


def _works(checks: list[Check]) -> list[tuple[str, str]]:
    """Pairs of (what, why not). An empty reason means that it works."""
    by_name = {check.name: check for check in checks}

    def lacking(*names: str) -> str:
        absent = [n for n in names if n not in by_name or by_name[n].status == "missing"]
        return f" (missing: {', '.join(absent)})" if absent else ""

    train = ("Python", "torch", "transformers", "DeepSpeed", "g++")
    gpu = lacking(*train, "vLLM", "GPU")
    if not gpu and "CPU build" in by_name["torch"].detail + by_name["vLLM"].detail:
        gpu = " (torch or vLLM is a CPU build; run `make install-gpu`)"
    hub_ok = "model hub" in by_name and by_name["model hub"].status == "ok"
    return [
        (
            "make quickstart: sample, vote, train and report on this machine",
            lacking(*train, "vLLM"),
        ),
        ("runs on imported rationales or with teacher.endpoints", lacking(*train)),
        ("recipes for GPUs", gpu),
        ("data sets and models from the hub", "" if hub_ok else " (the hub does not answer)"),
    ]


def _probe(python: Path, code: str) -> _Probe:
    script = f"import json\n{code}\nprint()\nprint(json.dumps(found))"
    try:
        done = subprocess.run(
            [python, "-c", script],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except OSError as error:
        return _Probe(error=f"{python} does not start: {error.strerror}")
    except subprocess.TimeoutExpired:
        return _Probe(error=f"no answer within {_PROBE_SECONDS:.0f} s")
    output = done.stderr if done.returncode else done.stdout
    last = output.strip().rpartition("\n")[2]
    if done.returncode:
        return _Probe(error=f"exit code {done.returncode}: {last}"[:200])
    # Engines may print anything before; our result is the last line.
    return _Probe(found=json.loads(last))


def _python() -> Check:
    return Check("Python", "ok", f"{platform.python_version()} at {sys.executable}")


def _torch(probe: _Probe) -> Check:
    if probe.error:
        return Check("torch", "missing", probe.error, _INSTALL)
    cuda, gpus = probe.found["cuda"], probe.found["gpus"]
    build = f"CUDA {cuda} build, sees {', '.join(gpus) or 'no GPU'}" if cuda else "CPU build"
    return Check("torch", "ok", f"{probe.found['version']}, {build}")


def _transformers(probe: _Probe) -> Check:
    status: Status = "missing" if probe.error else "ok"
    return Check("transformers", status, probe.error or probe.found["version"], _INSTALL)


def _deepspeed(probe: _Probe) -> Check:
    if probe.error:
        return Check("DeepSpeed", "missing", probe.error, _INSTALL)
    usable = ", ".join(probe.found["usable"]) or "none"
    return Check("DeepSpeed", "ok", f"{probe.found['version']}, ops that can be built: {usable}")


def _vllm(python: Path | None) -> Check:
    if python is None:
        from qcrd_core.teacher.servers.launch import find_vllm_python

        try:
            python = find_vllm_python()
        except LaunchError as error:
            return Check("vLLM", "missing", str(error))
    probe = _probe(python, _VLLM)
    if probe.error:
        return Check("vLLM", "missing", f"{probe.error} ({python})", _INSTALL)
    device = probe.found["device"]
    build = "CPU build" if device == "cpu" else f"build for {device or 'an unknown device'}"
    return Check("vLLM", "ok", f"{probe.found['version']}, {build}, at {python}")


def _gpu() -> Check:
    program = shutil.which("nvidia-smi")
    remedy = "The quickstart needs no GPU. For GPU recipes, install a driver and run this again."
    if program is None:
        return Check("GPU", "missing", "nvidia-smi not found", remedy)
    try:
        done = subprocess.run(
            [program, "--query-gpu=name,memory.total", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("GPU", "missing", f"nvidia-smi does not answer: {error}", remedy)
    names = "; ".join(done.stdout.splitlines())
    if done.returncode or not names:
        return Check("GPU", "missing", f"nvidia-smi: {names or done.stderr.strip()}"[:200], remedy)
    return Check("GPU", "ok", names)


def _compiler() -> Check:
    if path := shutil.which("g++"):
        return Check("g++", "ok", path)
    remedy = "Install it, for example with `apt-get install g++`. torch and vLLM compile with it."
    return Check("g++", "missing", "not on the PATH", remedy)


def _disk(store: str) -> Check:
    if "://" in store and not store.startswith("file://"):
        return Check("disk", "ok", "not checked, because the store is an object store")
    place = expand_user(store.removeprefix("file://")).absolute()
    while not place.exists():
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            free = shutil.disk_usage(place).free / _GIB
    except OSError as error:
        detail = f"{place} is not writable: {error.strerror}"
        return Check("disk", "warn", detail, "Set run.store to another folder.")
    detail = f"{free:.0f} GiB free at {place}"
    if free < _MIN_DISK_GIB:
        return Check("disk", "warn", detail, "Free some space, or set run.store to another folder.")
    return Check("disk", "ok", detail)


def _memory() -> Check:
    memory = psutil.virtual_memory()
    available, total = memory.available / _GIB, memory.total / _GIB
    detail = f"{available:.0f} of {total:.0f} GiB available, {os.cpu_count()} processors"
    if available < _MIN_MEMORY_GIB:
        return Check("memory", "warn", detail, "Close other programs: 6 GiB may be needed.")
    return Check("memory", "ok", detail)


def _prefect() -> Check:
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        return Check("Prefect server", "ok", "each run starts its own (PREFECT_API_URL is not set)")
    error = _unreachable(f"{url.rstrip('/')}/health")
    if error:
        remedy = "Start it, or unset PREFECT_API_URL to let each run start its own."
        return Check("Prefect server", "missing", f"{url} does not answer: {error}", remedy)
    return Check("Prefect server", "ok", f"{url} answers")


def _hub() -> Check:
    remedy = "word_problems and your own files need no hub. data.path can name a local copy."
    if os.environ.get("HF_HUB_OFFLINE", "0").upper() in {"1", "TRUE", "YES", "ON"}:
        return Check("model hub", "warn", "switched off by HF_HUB_OFFLINE", remedy)
    url = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    error = _unreachable(url)
    if error:
        return Check("model hub", "warn", f"{url} does not answer: {error}", remedy)
    return Check("model hub", "ok", f"{url} answers")


def _unreachable(url: str) -> str:
    """Why a server does not answer; empty if it does. A status 4xx counts as an answer."""
    if not url.startswith(("http://", "https://")):
        return "not an http address"
    try:
        with urllib.request.urlopen(url, timeout=_HTTP_SECONDS):
            return ""
    except urllib.error.HTTPError as error:
        return "" if error.code < 500 else f"status {error.code}"
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))
