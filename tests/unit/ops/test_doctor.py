"""The doctor answers, whatever is broken."""

import http.server
import stat
import sys
import threading
from pathlib import Path

import pytest

from qcrd_core.ops.doctor import Check, examine, format_checks

ABSENT = Path("/nonexistent/bin/python")


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("PREFECT_API_URL", raising=False)


def all_ok(**changed):
    details = {
        "Python": "3.11",
        "torch": "2.13, CUDA 13.0 build",
        "transformers": "5.19",
        "DeepSpeed": "0.19",
        "vLLM": "0.32, build for cuda",
        "GPU": "H100",
        "g++": "/usr/bin/g++",
        "model hub": "answers",
    }
    return [changed.get(name, Check(name, "ok", detail)) for name, detail in details.items()]


def works(checks):
    lines = format_checks(checks).partition("What will work:\n")[2].splitlines()
    return [line.split()[0] for line in lines]


def test_examine_with_absent_interpreters_reports_them_missing(tmp_path):
    checks = {c.name: c for c in examine(str(tmp_path), python=ABSENT, vllm_python=ABSENT)}
    for name in ("torch", "transformers", "DeepSpeed", "vLLM"):
        assert checks[name].status == "missing"
        assert f"{ABSENT} does not start: No such file" in checks[name].detail
        assert "make install" in checks[name].remedy
    assert checks["Python"].status == "ok"


def test_examine_with_crashing_interpreter_shows_its_last_line(tmp_path):
    script = tmp_path / "python"
    script.write_text(
        "#!/bin/sh\necho noise >&2\necho 'ImportError: libtorch is torn' >&2\nexit 3\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    checks = {c.name: c for c in examine(str(tmp_path), python=script, vllm_python=script)}
    assert checks["torch"].detail == "exit code 3: ImportError: libtorch is torn"


def test_examine_with_plain_interpreter_names_the_missing_module(tmp_path):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    python.chmod(0o755)
    checks = {c.name: c for c in examine(str(tmp_path), python=python, vllm_python=python)}
    assert "No module named 'vllm'" in checks["vLLM"].detail


def test_examine_without_vllm_explains_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("QCRD_VLLM_PYTHON", str(ABSENT))
    checks = {c.name: c for c in examine(str(tmp_path), python=ABSENT)}
    assert checks["vLLM"].status == "missing"
    assert "QCRD_VLLM_PYTHON must name a Python interpreter" in checks["vLLM"].detail


def test_examine_with_store_yet_to_be_made_measures_the_disk_below_it(tmp_path):
    store = tmp_path / "not" / "yet"
    checks = {c.name: c for c in examine(str(store), python=ABSENT, vllm_python=ABSENT)}
    assert f"GiB free at {tmp_path}" in checks["disk"].detail
    assert not store.exists()


class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/api/health" else 500)
        self.end_headers()

    def log_message(self, *args):
        del args


def test_examine_with_prefect_server_asks_its_health(tmp_path, monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Health)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    statuses = []
    for path in ("/api", "/other"):
        monkeypatch.setenv("PREFECT_API_URL", url + path)
        checks = {c.name: c for c in examine(str(tmp_path), python=ABSENT, vllm_python=ABSENT)}
        statuses.append(checks["Prefect server"].status)
    server.shutdown()
    server.server_close()
    assert statuses == ["ok", "missing"]


def test_examine_with_store_that_takes_no_file_warns():
    checks = {c.name: c for c in examine("/proc/store", python=ABSENT, vllm_python=ABSENT)}
    assert checks["disk"].status == "warn"
    assert "/proc is not writable" in checks["disk"].detail


def test_format_checks_with_all_ok_promises_everything():
    assert works(all_ok()) == ["yes", "yes", "yes", "yes"]


def test_format_checks_shows_the_remedy_under_its_check():
    text = format_checks(all_ok(vLLM=Check("vLLM", "missing", "not there", "Run it.")))
    lines = text.splitlines()
    index = next(i for i, line in enumerate(lines) if line.startswith("missing"))
    assert lines[index].split() == ["missing", "vLLM", "not", "there"]
    assert lines[index + 1].strip() == "-> Run it."
    assert works(all_ok(vLLM=Check("vLLM", "missing", "x"))) == ["no", "yes", "no", "yes"]


def test_format_checks_with_cpu_build_beside_a_gpu_points_at_the_other_install():
    checks = all_ok(torch=Check("torch", "ok", "2.13, CPU build"))
    assert works(checks) == ["yes", "yes", "no", "yes"]
    assert "make install-gpu" in format_checks(checks)


def test_format_checks_without_torch_promises_nothing_local():
    checks = all_ok(torch=Check("torch", "missing", "exit code 1"))
    assert works(checks) == ["no", "no", "no", "yes"]
    assert "(missing: torch)" in format_checks(checks)


def script(folder, name, body):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def test_examine_on_a_gpu_machine_names_builds_and_device(tmp_path, monkeypatch):
    answer = '{"version": "1.2", "cuda": "13.0", "gpus": ["H100"], "usable": [], "device": "cuda"}'
    python = script(tmp_path, "python", f"echo noise\necho '{answer}'")
    script(tmp_path, "nvidia-smi", "echo 'NVIDIA H100, 81559 MiB'")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    checks = {c.name: c for c in examine(str(tmp_path), python=python, vllm_python=python)}
    assert checks["torch"].detail == "1.2, CUDA 13.0 build, sees H100"
    assert checks["vLLM"].detail == f"1.2, build for cuda, at {python}"
    assert checks["GPU"] == Check("GPU", "ok", "NVIDIA H100, 81559 MiB")


def test_examine_with_a_broken_driver_shows_what_it_says(tmp_path, monkeypatch):
    script(tmp_path, "nvidia-smi", "echo 'Driver/library version mismatch' >&2\nexit 18")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    checks = {c.name: c for c in examine(str(tmp_path), python=ABSENT, vllm_python=ABSENT)}
    assert checks["GPU"].status == "missing"
    assert checks["GPU"].detail == "nvidia-smi: Driver/library version mismatch"


def test_examine_without_programs_on_the_path_says_how_to_install_them(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    checks = {c.name: c for c in examine(str(tmp_path), python=ABSENT, vllm_python=ABSENT)}
    assert (checks["g++"].status, checks["GPU"].status) == ("missing", "missing")
    assert "apt-get install g++" in checks["g++"].remedy


@pytest.mark.parametrize(
    ("endpoint", "detail"),
    [
        ("http://127.0.0.1:9", "http://127.0.0.1:9 does not answer: [Errno"),
        ("ftp://hub", "ftp://hub does not answer: not an http address"),
    ],
    ids=["refused", "no-http"],
)
def test_examine_with_an_unreachable_hub_warns(tmp_path, monkeypatch, endpoint, detail):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    checks = {c.name: c for c in examine(str(tmp_path), python=ABSENT, vllm_python=ABSENT)}
    assert checks["model hub"].status == "warn"
    assert checks["model hub"].detail.startswith(detail)


def test_examine_of_object_store_shows_no_part_of_its_address():
    store = "s3://key:secret@bucket/q"
    checks = {c.name: c for c in examine(store, python=ABSENT, vllm_python=ABSENT)}
    assert checks["disk"].detail == "not checked, because the store is an object store"
