"""The wheel holds all that a command reads, and works where there is no clone."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("qcrd_core", "data_schemas", "flows", "tasks", "explorer", "configs")


def _tracked(*places):
    command = ["git", "ls-files", *places]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return listed.stdout.split()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from the tracked files, so that nothing is written into the clone."""
    source, out = (tmp_path_factory.mktemp(name) for name in ("source", "wheel"))
    for name in _tracked(*PACKAGES, "pyproject.toml", "README.md", "LICENSE"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    options = ("--no-deps", "--no-build-isolation", "--disable-pip-version-check", "-q")
    pip = [sys.executable, "-m", "pip", "wheel", str(source), *options, "-w", str(out)]
    subprocess.run(pip, check=True, capture_output=True)
    (path,) = out.glob("qcrd-*.whl")
    return path


def test_wheel_holds_every_tracked_file_of_its_packages_and_nothing_else(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == set(_tracked(*PACKAGES))


@pytest.fixture(scope="module")
def qcrd(wheel, tmp_path_factory):
    """`qcrd` of the wheel, started in an empty folder: (exit code, output)."""
    installed, here = (tmp_path_factory.mktemp(name) for name in ("installed", "here"))
    zipfile.ZipFile(wheel).extractall(installed)
    environment = {**os.environ, "PYTHONPATH": str(installed), "COLUMNS": "100"}
    start = (
        "import flows; from flows.commands.cli import main; "
        f"assert flows.__file__.startswith({str(installed)!r}); main()"
    )

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, "-c", start, *arguments],
            capture_output=True,
            text=True,
            cwd=here,
            env=environment,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    run.folder = here
    return run


def test_first_run_is_planned_in_an_empty_folder(qcrd):
    assert qcrd("--help")[0] == 0
    rows = [f"How many are {i} and 2?,{i + 2}\n" for i in range(60)]
    (qcrd.folder / "sums.csv").write_text("question,answer\n" + "".join(rows))
    code, said = qcrd("init", "sums.csv")
    assert code == 0, said
    endpoints = "teacher.endpoints=[http://127.0.0.1:9/v1]"
    code, said = qcrd("run", "--config", "run.yaml", endpoints, "--dry-run")
    assert code == 0, said
    assert "How many are" in said


def test_shipped_recipe_and_data_set_are_found_in_an_empty_folder(qcrd):
    settings = ("teacher.model={type: hub, name: stub}", "teacher.reuse=[]")
    endpoints = "teacher.endpoints=[http://127.0.0.1:9/v1]"
    command = ("run", "--config", "configs/quickstart.yaml", *settings, endpoints, "--dry-run")
    code, said = qcrd(*command)
    assert code == 0, said
    assert "word_problems: 1,000 train" in said


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (("run", "--config", "configs/quickstart.yaml", "--dry-run"), "quickstart/teacher"),
        (("run", "--config", "configs/none.yaml", "--dry-run"), "must be a readable YAML file"),
        (("up",), "need a clone of qcrd, which has prefect.yaml"),
    ],
    ids=["quickstart", "unknown recipe", "up"],
)
def test_what_needs_a_clone_is_refused_in_one_sentence(qcrd, command, sentence):
    code, said = qcrd(*command)
    assert code in {1, 2}, said
    assert sentence in said
    assert "Traceback" not in said
    assert len(said.strip().splitlines()) == 1
