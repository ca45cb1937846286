"""prefect.yaml: what is deployed, and that presets are the files of configs/."""

import os
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from uuid import UUID

import pytest
import yaml
from prefect.events.schemas.automations import AutomationCore
from prefect.utilities.callables import parameter_schema
from pydantic import TypeAdapter

from flows.distill_file import chosen_config, distill_file
from flows.redistill_nightly import redistill_nightly
from flows.server.presets import read_preset
from qcrd_core.bench.config import BenchConfig, load_bench
from qcrd_core.config.run import RunConfig, load_config
from qcrd_core.errors import ConfigError

ROOT = Path(__file__).parents[2]
DEPLOYMENTS = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
AUTOMATIONS = yaml.safe_load(
    (ROOT / "flows/server/automations.yaml").read_text().replace("$block", str(UUID(int=1)))
)
TRAINING = [item for item in DEPLOYMENTS if item["work_pool"].get("work_queue_name") == "training"]
PRESETS = [p for p in sorted((ROOT / "configs").glob("*.yaml")) if not p.stem.startswith("bench_")]


def _preset_of(deployment):
    return deployment["build"][0]["flows.server.presets.read_preset"]["path"]


def test_every_recipe_is_a_deployment_of_its_name():
    presets = {
        item["name"]: _preset_of(item)
        for item in TRAINING
        if item["name"].startswith("distill-") and item["name"] != "distill-file"
    }

    assert presets == {f"distill-{path.stem}": f"configs/{path.name}" for path in PRESETS}


def test_form_of_one_screen_offers_every_recipe_and_the_users_own_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("configs", "data"):
        (tmp_path / folder).mkdir()
    (tmp_path / "data/mine.yaml").write_bytes((ROOT / "configs/first.yaml").read_bytes())
    (tmp_path / "run.yaml").write_bytes((ROOT / "configs/first.yaml").read_bytes())
    (tmp_path / "prefect.yaml").write_bytes((ROOT / "prefect.yaml").read_bytes())
    (tmp_path / "data/broken.yaml").write_bytes(b"\xff{")
    (tmp_path / "data/folder.yaml").mkdir()
    os.mkfifo(tmp_path / "data/pipe.yaml")
    for path in (ROOT / "configs").glob("*.yaml"):
        (tmp_path / "configs" / path.name).write_bytes(path.read_bytes())

    properties = parameter_schema(distill_file).model_dump()["properties"]

    offered = ["run.yaml", *(f"configs/{path.name}" for path in PRESETS), "data/mine.yaml"]
    assert properties["settings"]["enum"] == offered
    assert len(properties) <= 12
    assert all(each["description"] for each in properties.values())


def test_form_of_one_screen_changes_the_file():
    config = chosen_config(
        "configs/quickstart.yaml",
        name="1e5",
        num_samples=3,
        changes=("training.num_rounds=2", "teacher.num_samples=4"),
    )

    assert (config.run.name, config.training.num_rounds, config.teacher.num_samples) == (
        "1e5",
        2,
        4,
    )
    assert chosen_config("configs/quickstart.yaml") == load_config(ROOT / "configs/quickstart.yaml")


def test_form_of_one_screen_refuses_a_wrong_line():
    with pytest.raises(ConfigError, match=r"Did you mean training\.num_rounds"):
        chosen_config("configs/quickstart.yaml", changes=("training.num_round=2",))


@pytest.mark.parametrize("path", PRESETS, ids=lambda p: p.stem)
def test_preset_is_the_whole_file(path):
    parameters = read_preset(str(path))

    assert TypeAdapter(RunConfig).validate_python(parameters["config"]) == load_config(path)


def test_bench_in_the_form_is_the_whole_file():
    path = ROOT / "configs" / "bench_word_problems.yaml"

    parameters = read_preset(str(path), of="bench")

    assert TypeAdapter(BenchConfig).validate_python(parameters["config"]) == load_bench(path)


def test_preset_with_wrong_setting_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("run: {name: mine, stoer: here}")

    with pytest.raises(ConfigError, match=r"run\.stoer is not a setting .*Did you mean run\.store"):
        read_preset(str(path))


def test_training_deployments_let_a_second_run_wait():
    limits = {item["name"]: item["concurrency_limit"] for item in TRAINING}

    # Several samplers share a run through the store; what trains does not.
    assert limits.pop("sample-teacher") is None
    assert set(map(str, limits.values())) == {str({"limit": 1, "collision_strategy": "ENQUEUE"})}


def test_schedules_have_a_time_zone_and_are_off_until_somebody_switches_them_on():
    schedules = [one for item in DEPLOYMENTS for one in item.get("schedules", [])]

    assert len(schedules) == 1
    assert all({"slug", "cron", "timezone"} <= one.keys() for one in schedules)
    assert all(one["active"] == "{{ schedule.active }}" for one in schedules)


def test_nightly_trains_with_a_file_of_settings():
    (nightly,) = [item for item in DEPLOYMENTS if item["name"] == "redistill-nightly"]

    assert nightly["parameters"] == {
        "settings": "configs/quickstart.yaml",
        "changes": [],
        "warm_start": False,
    }
    properties = parameter_schema(redistill_nightly).model_dump()["properties"]
    assert "configs/svamp.yaml" in properties["settings"]["enum"]
    assert properties.keys() == nightly["parameters"].keys()


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda item: item["name"])
def test_entrypoint_is_a_flow_and_the_form_says_what_it_is_for(deployment):
    path, _, function = deployment["entrypoint"].partition(":")
    module = import_module(path.removesuffix(".py").replace("/", "."))

    assert getattr(module, function).name in deployment["entrypoint"].replace("_", "-")
    assert deployment["description"].strip().endswith(".")


@pytest.mark.parametrize("when", AUTOMATIONS)
def test_automations_are_such_as_prefect_takes(when):
    for automation in AUTOMATIONS[when]:
        made = AutomationCore.model_validate(automation)

        assert made.trigger.within in (timedelta(seconds=0), timedelta(seconds=150))
