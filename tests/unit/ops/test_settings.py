"""docs/settings.md, the JSON Schemas and `qcrd settings` are made from the models, all of them."""

import json
from pathlib import Path
from typing import Annotated

import jsonschema
import pytest
import yaml
from pydantic import TypeAdapter

from qcrd_core.config.names import settings_of
from qcrd_core.config.reference import as_yaml, default_text, example, type_text
from qcrd_core.config.run import RunConfig, load_config
from qcrd_core.ops.settings import MODELS, list_settings, written_files

ROOT = Path(__file__).parents[3]
SETTINGS = [
    (kind, name)
    for kind, model in MODELS.items()
    for name, setting in settings_of(model).items()
    if not setting.is_repeated
]
FILES = [
    *sorted((ROOT / "configs").glob("*.yaml")),
    *sorted((ROOT / "configs" / "datasets").glob("*.yaml")),
    *sorted((ROOT / "qcrd_core" / "data" / "specs").glob("*.yaml")),
]


@pytest.mark.parametrize("path", written_files(), ids=lambda path: path.name)
def test_written_file_is_that_of_the_models(path):
    assert path.read_text(encoding="utf-8") == written_files()[path], (
        "run `python -m qcrd_core.ops.settings`"
    )


@pytest.mark.parametrize(("kind", "name"), SETTINGS)
def test_page_has_each_setting_with_its_meaning_and_a_valid_example(kind, name):
    setting = settings_of(MODELS[kind])[name]
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]

    assert setting.meaning.endswith(".")
    assert setting.meaning.replace("|", "\\|") in rows[0]
    assert type_text(setting)
    assert default_text(setting)
    value = yaml.safe_load(as_yaml(example(setting)))
    field = setting.fields[0]
    TypeAdapter(Annotated[field.annotation, "", *field.metadata]).validate_python(value)


def test_run_has_at_most_eighty_settings_beside_those_for_experts():
    leaves = [one for one in settings_of(RunConfig).values() if not one.holds_settings]

    assert sum(not one.is_expert for one in leaves) <= 80


def test_first_configuration_is_short_and_has_four_sections():
    path = ROOT / "configs" / "first.yaml"

    assert len(path.read_text(encoding="utf-8").splitlines()) <= 25
    assert set(yaml.safe_load(path.read_text())) == {"run", "data", "teacher", "student"}
    assert load_config(path).discriminator_model == load_config(path).student.model


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_shipped_file_names_the_schema_that_it_follows(path):
    first = path.read_text(encoding="utf-8").splitlines()[0]
    if path.stem.startswith("bench_"):
        assert "$schema" not in first
        return
    schema = path.parent / first.partition("$schema=")[2]
    kind = "run" if path.parent.name == "configs" else "dataset"
    assert schema.resolve() == ROOT / "configs" / "schema" / f"{kind}.schema.json"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    jsonschema.validate(content, json.loads(schema.read_text()))
    with pytest.raises(jsonschema.ValidationError, match="nonsense"):
        jsonschema.validate({**content, "nonsense": 1}, json.loads(schema.read_text()))


@pytest.mark.parametrize("kind", MODELS)
def test_list_fits_a_hundred_columns_and_has_every_setting(kind):
    text = list_settings(kind)

    assert max(map(len, text.splitlines())) <= 100
    for name in (name for known, name in SETTINGS if known == kind):
        assert f"\n  {name.partition('.')[2] or name} " in text


def test_settings_of_further_teachers_are_known_and_listed_once():
    repeated = [name for name, one in settings_of(RunConfig).items() if one.is_repeated]

    assert "teacher.others.sampling_temperature" in repeated
    assert all(name.startswith("teacher.others.") for name in repeated)
    assert "others.model" not in list_settings("run")
    assert "      others:\n        - num_samples: 8" in list_settings(
        "run", "teacher.others.num_samples"
    )


def test_list_of_a_section_has_no_other():
    text = list_settings("run", "training")

    assert text.startswith("training\n  num_rounds ")
    assert "training, for experts\n" in text
    assert "teacher" not in text


def test_one_setting_is_explained_with_an_example():
    text = list_settings("run", "teacher.num_samples")

    assert "type     integer, at least 1, at most 1,000\n" in text
    assert "    teacher:\n      num_samples: 8\n" in text
    assert text.endswith("    qcrd run --config FILE teacher.num_samples=8")


def test_setting_of_a_list_is_shown_in_one():
    assert "      endpoints:\n        - url: http" in list_settings("run", "teacher.endpoints.url")
