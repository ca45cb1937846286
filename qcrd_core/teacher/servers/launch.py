"""Interpreter, command line and environment of the managed vLLM server.

vLLM has its own virtual environment, because its pinned versions conflict with ours. We reach it
over HTTP only and never import it. It starts with `python -m`, because the `vllm` command of the
CPU wheel does not start.
"""

import importlib.util
import os
import socket
import sys
from pathlib import Path

from qcrd_core.config.models import HubModel
from qcrd_core.config.teacher import TeacherSection, VllmServer
from qcrd_core.errors import LaunchError
from qcrd_core.runtime.openmp import passive_openmp
from qcrd_core.runtime.processes import has_accelerator, num_gpus

MODULE = "vllm.entrypoints.openai.api_server"

_CPU_BATCHED_TOKENS = 4096


def find_vllm_python() -> Path:
    """Find the Python interpreter that has vLLM.

    Tries, in this order: QCRD_VLLM_PYTHON; `.venv-vllm/bin/python` beside this environment's
    folder; this interpreter, if vLLM is installed here.

    Returns:
        The interpreter.

    Raises:
        LaunchError: If none of the three exists.
    """
    named = os.environ.get("QCRD_VLLM_PYTHON")
    if named:
        if Path(named).is_file():
            return Path(named)
        msg = (
            f"QCRD_VLLM_PYTHON must name a Python interpreter; got {named!r}. Correct or unset it."
        )
        raise LaunchError(msg)
    beside = Path(sys.prefix).parent / ".venv-vllm" / "bin" / "python"
    if beside.is_file():
        return beside
    if importlib.util.find_spec("vllm") is not None:
        return Path(sys.executable)
    msg = (
        f"vLLM must be installed to sample a local teacher; found neither {beside} nor vllm in "
        f"{sys.executable}. Run `make install` in a clone, name the interpreter that has it in "
        "QCRD_VLLM_PYTHON, or set teacher.endpoints to running servers."
    )
    raise LaunchError(msg)


def server_command(teacher: TeacherSection, name: str, *, served_name: str, port: int) -> list[str]:
    """Build the server's command line, without its interpreter.

    Args:
        teacher: Section of the configuration.
        name: Model folder, or hub name.
        served_name: Model name that requests must use.
        port: Port on 127.0.0.1.

    Returns:
        Arguments from `-m` on.
    """
    server = teacher.server
    arguments = ["-m", MODULE, "--model", name, "--served-model-name", served_name]
    arguments += ["--host", "127.0.0.1", "--port", str(port), "--disable-uvicorn-access-log"]
    # A model's generation_config.json would change the sampling without changing the fingerprint.
    arguments += ["--generation-config", "vllm", "--logprobs-mode", "raw_logprobs"]
    arguments += ["--enable-prefix-caching"]
    if isinstance(teacher.model, HubModel) and teacher.model.revision:
        arguments += ["--revision", teacher.model.revision]
    if server.max_model_len is not None:
        arguments += ["--max-model-len", str(server.max_model_len)]
    if server.tensor_parallel_size > 1:
        arguments += ["--tensor-parallel-size", str(server.tensor_parallel_size)]
    if num_engines(server) > 1:
        arguments += ["--data-parallel-size", str(num_engines(server))]
    arguments += _device_arguments(teacher)
    # Last, because of an argument given twice vLLM takes the second.
    return [*arguments, *server.extra_args]


def num_engines(server: VllmServer) -> int:
    """Model copies that the server runs: as configured, or as many as the GPUs hold, at least 1."""
    return server.data_parallel_size or max(1, num_gpus() // server.tensor_parallel_size)


def server_environment(teacher: TeacherSection, name: str, api_key: str) -> dict[str, str]:
    """Build the variables set on top of this process's environment.

    Args:
        teacher: Section of the configuration.
        name: Model folder, or hub name.
        api_key: Key that requests must carry. It is not passed on the command line, where every
            user of the machine could read it.

    Returns:
        Names and values. CPU settings that the user has already made are kept.
    """
    environment = {
        "VLLM_API_KEY": api_key,
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        # Must exceed the client's idle time, or vLLM may close a connection during a request.
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "600",
    }
    if Path(name).is_dir():
        environment["HF_HUB_OFFLINE"] = "1"
    if not has_accelerator():
        for variable, value in _cpu_environment(teacher).items():
            environment[variable] = os.environ.get(variable, value)
    return environment


def free_port() -> int:
    """Ask the kernel for a free port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _cpu_environment(teacher: TeacherSection) -> dict[str, str]:
    environment = {"VLLM_CPU_KVCACHE_SPACE": "1", **passive_openmp()}
    # vLLM reserves one core per rank for its scheduler: half of a machine with two cores.
    if teacher.server.tensor_parallel_size * num_engines(teacher.server) == 1:
        cpus = sorted(os.sched_getaffinity(0))
        environment["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, cpus))
        environment["OMP_NUM_THREADS"] = str(len(cpus))
    return environment


def _device_arguments(teacher: TeacherSection) -> list[str]:
    server = teacher.server
    if has_accelerator():
        return ["--dtype", "auto", "--gpu-memory-utilization", "0.9"]
    # CPUs without AVX512-BF16 are fast in float32 only.
    arguments = ["--dtype", "float32", "--no-enable-chunked-prefill"]
    # The CPU engine dies when the prompt of a seeded request is prefilled in two pieces, so every
    # prompt must fit into one step. Without max_model_len, vLLM uses the model's own length.
    if server.max_model_len is not None:
        budget = max(server.max_model_len, _CPU_BATCHED_TOKENS)
        arguments += ["--max-num-batched-tokens", str(budget)]
    return arguments
