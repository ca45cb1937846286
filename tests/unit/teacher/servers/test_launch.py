"""The managed server's interpreter, command line and environment."""

import os
import sys

import pytest

from qcrd_core.errors import LaunchError
from qcrd_core.runtime import processes
from qcrd_core.teacher.servers import launch
from tests.support.sampling import make_config


def _command(tmp_path, **server):
    teacher = make_config(tmp_path, None, server=server).teacher
    return launch.server_command(teacher, "/models/teacher", served_name="teacher", port=1234)


def test_find_vllm_python_takes_the_named_interpreter(monkeypatch):
    monkeypatch.setenv("QCRD_VLLM_PYTHON", sys.executable)
    assert str(launch.find_vllm_python()) == sys.executable


def test_find_vllm_python_with_a_wrong_name_is_refused(monkeypatch):
    monkeypatch.setenv("QCRD_VLLM_PYTHON", "/no/python")
    with pytest.raises(LaunchError, match=r"QCRD_VLLM_PYTHON must name .*'/no/python'"):
        launch.find_vllm_python()


def test_find_vllm_python_takes_the_environment_beside_ours(monkeypatch, tmp_path):
    beside = tmp_path / ".venv-vllm" / "bin" / "python"
    beside.parent.mkdir(parents=True)
    beside.touch()
    monkeypatch.delenv("QCRD_VLLM_PYTHON", raising=False)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    assert launch.find_vllm_python() == beside


def test_find_vllm_python_without_vllm_names_the_remedy(monkeypatch, tmp_path):
    monkeypatch.delenv("QCRD_VLLM_PYTHON", raising=False)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(
        LaunchError, match=r"Run `make install` in a clone, .* or set teacher.endpoints"
    ):
        launch.find_vllm_python()


def test_server_command_on_a_cpu_never_prefills_in_pieces(monkeypatch, tmp_path):
    monkeypatch.setattr(launch, "has_accelerator", lambda: False)
    command = _command(tmp_path, max_model_len=8192)
    assert "--no-enable-chunked-prefill" in command
    assert command[command.index("--max-num-batched-tokens") + 1] == "8192"
    assert command[command.index("--dtype") + 1] == "float32"


def test_argument_of_the_user_stands_after_ours(monkeypatch, tmp_path):
    monkeypatch.setattr(launch, "has_accelerator", lambda: False)
    command = _command(tmp_path, extra_args=["--dtype=bfloat16", "--enforce-eager"])
    assert command[-2:] == ["--dtype=bfloat16", "--enforce-eager"]


def test_server_command_on_a_gpu_spreads_the_model(monkeypatch, tmp_path):
    monkeypatch.setattr(launch, "has_accelerator", lambda: True)
    command = _command(tmp_path, tensor_parallel_size=2, data_parallel_size=4)
    assert command[command.index("--tensor-parallel-size") + 1] == "2"
    assert command[command.index("--data-parallel-size") + 1] == "4"
    assert command[command.index("--gpu-memory-utilization") + 1] == "0.9"
    assert "--no-enable-chunked-prefill" not in command


@pytest.mark.parametrize(
    ("server", "devices", "engines"),
    [({}, "0,1,2,3", 4), ({"tensor_parallel_size": 2}, "0,1,2,3", 2), ({}, "3", 1), ({}, "", 1)],
)
def test_server_command_on_gpus_runs_an_engine_on_each(
    monkeypatch, tmp_path, server, devices, engines
):
    for module in (launch, processes):
        monkeypatch.setattr(module, "has_accelerator", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    command = _command(tmp_path, **server)
    assert launch.num_engines(make_config(tmp_path, None, server=server).teacher.server) == engines
    assert command.count("--data-parallel-size") == (engines > 1)


def test_server_command_holds_no_secret_and_trusts_no_code(tmp_path):
    command = _command(tmp_path)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert not [part for part in command if "api-key" in part or "trust" in part]


def test_server_environment_keeps_the_users_own_cpu_settings(monkeypatch, tmp_path):
    monkeypatch.setattr(launch, "has_accelerator", lambda: False)
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "7")
    teacher = make_config(tmp_path, None).teacher
    environment = launch.server_environment(teacher, str(tmp_path), "secret")
    assert environment["VLLM_CPU_KVCACHE_SPACE"] == "7"
    assert environment["VLLM_API_KEY"] == "secret"
    assert environment["VLLM_NO_USAGE_STATS"] == "1"
    assert environment["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize(
    ("set_by_user", "waiting"),
    [({}, ("passive", "2000")), ({"OMP_WAIT_POLICY": "active"}, ("active", None))],
)
def test_server_on_a_cpu_waits_passively_unless_told_otherwise(
    monkeypatch, tmp_path, set_by_user, waiting
):
    monkeypatch.setattr(launch, "has_accelerator", lambda: False)
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in set_by_user.items():
        monkeypatch.setenv(name, value)
    teacher = make_config(tmp_path, None).teacher
    environment = {**os.environ, **launch.server_environment(teacher, str(tmp_path), "secret")}
    assert (environment["OMP_WAIT_POLICY"], environment.get("GOMP_SPINCOUNT")) == waiting
