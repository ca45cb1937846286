"""The names of runs outlive settings: those of the shipped files as they were computed before."""

import json
from pathlib import Path

import pytest

from qcrd_core.bench.config import load_bench
from qcrd_core.config.run import load_config, validate_config
from tests.support.tiny_config import tiny_config

FOLDER = Path(__file__).parents[3] / "configs"
KNOWN = json.loads(Path(__file__).with_name("run_ids.json").read_text())
DATA = "0" * 16


def _ids(path):
    if not path.stem.startswith("bench_"):
        return load_config(path).run_id(DATA)
    bench = load_bench(path)
    return {name: bench.run_config(name, bench.seeds[0]).run_id(DATA) for name in bench.methods}


@pytest.mark.parametrize("name", KNOWN)
def test_shipped_file_names_the_runs_that_it_always_named(name):
    assert _ids(FOLDER / name) == KNOWN[name]


def test_discriminator_that_is_named_like_the_default_is_the_same_run():
    student = {"model": {"type": "scratch", "hidden_size": 64, "num_layers": 1}}
    named = {"model": {"type": "scratch", "hidden_size": 32, "num_layers": 1}}

    default = tiny_config(student=student, discriminator={})

    assert tiny_config(student=student, discriminator=named).run_id(DATA) == default.run_id(DATA)
    other = {"model": {"type": "scratch", "hidden_size": 48, "num_layers": 1}}
    assert tiny_config(student=student, discriminator=other).run_id(DATA) != default.run_id(DATA)


def test_model_as_a_text_is_the_same_run():
    text = tiny_config(student={"model": "google/t5-v1_1-base"}, discriminator={})
    section = {"model": {"type": "hub", "name": "google/t5-v1_1-base"}}

    assert tiny_config(student=section, discriminator=section).run_id(DATA) == text.run_id(DATA)


def test_folder_as_a_text_is_a_folder():
    config = tiny_config(student={"model": "./students/one"})

    assert config.student.model.path == Path("students/one")
    assert validate_config(config.model_dump(mode="json"), "dump") == config
