"""Hosts that train together: files, Slurm, and what is refused before any work."""

import socket
import stat
import threading
import time

import pytest

from qcrd_core.errors import ConfigError, TrainingError
from qcrd_core.runtime.hosts import check_hosts, own_place, read_hosts, wait_until_open
from tests.support.tiny_config import refusal, tiny_config

SCONTROL = """#!/bin/sh
test "$*" = "show hostnames node[1-2]" && printf "node1\\nnode2\\n"
"""


_BATCH = {"global_batch_size": 64, "micro_batch_size": 8}


def _load(**training):
    return tiny_config(training=_BATCH | training).training


def _refusal(**training):
    return refusal(training=_BATCH | training)


def test_hosts_share_the_batch():
    training = _load(hosts=["node1", "node2"], num_processes=2)
    assert (training.num_ranks, training.gradient_accumulation_steps) == (4, 2)
    assert _load().num_ranks == 1


def test_ranks_that_do_not_divide_the_batch_are_refused():
    message = _refusal(hosts=["a", "b", "c"], num_processes=2)
    assert "got 64 and 8 x 2 x 3 hosts (tiny.yaml" in message


def test_host_named_twice_is_refused():
    assert "must name each host once; got a twice" in _refusal(hosts=["a", "b", "a"])


def test_hostfile_is_read_as_mpi_and_deepspeed_do(tmp_path):
    path = tmp_path / "hosts.txt"
    path.write_text("# two machines\nnode1 slots=2\n\nnode2   slots=2 # the new one\n")
    assert _load(hosts=str(path), num_processes=2).hosts == ("node1", "node2")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("node1 slots=4", "slots must equal training.num_processes, 1; got 4"),
        ("node1 gpus=4", "must be `host slots=N`; got 'node1 gpus=4'"),
        ("node1\nnode1", "must name each host once; got node1 twice"),
    ],
)
def test_hostfile_with_a_wrong_line_is_refused(tmp_path, text, reason):
    path = tmp_path / "hosts.txt"
    path.write_text(text)
    assert reason in _refusal(hosts=str(path))


def test_absent_hostfile_is_refused():
    assert "must be a list, slurm, or a readable hostfile; got no.txt" in _refusal(hosts="no.txt")


def test_slurm_job_names_the_hosts(tmp_path, monkeypatch):
    program = tmp_path / "scontrol"
    program.write_text(SCONTROL)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "node[1-2]")
    assert _load(hosts="slurm").hosts == ("node1", "node2")


def test_slurm_without_a_job_is_refused(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_NODELIST", raising=False)
    assert "applies only within a Slurm job; SLURM_JOB_NODELIST" in _refusal(hosts="slurm")


def test_run_does_not_depend_on_hosts():
    check_hosts(())
    check_hosts(("127.0.0.1", "198.51.100.1"))
    assert own_place(["198.51.100.1", "127.0.0.1"]) == 1


@pytest.mark.parametrize(
    ("hosts", "reason"),
    [
        (("198.51.100.1", "127.0.0.1"), "must begin with this host, which runs the flow"),
        (("localhost", "127.0.0.1"), "localhost and 127.0.0.1 are both 127.0.0.1"),
        (("127.0.0.1", "127.0.0.2"), "127.0.0.1 and 127.0.0.2 are both this host"),
        (("198.51.100.1", "198.51.100.2"), "must name this host"),
        (("127.0.0.1", "no.such.host.invalid"), "got no.such.host.invalid"),
    ],
    ids=["order", "same-address", "same-host", "elsewhere", "unknown"],
)
def test_hosts_that_cannot_train_together_are_refused(hosts, reason):
    with pytest.raises(ConfigError, match=reason):
        check_hosts(hosts)


def test_first_host_may_begin_late():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        threading.Timer(0.7, server.listen).start()
        start = time.monotonic()
        # It refuses at first, which is an answer: patience is not used up.
        wait_until_open("127.0.0.1", port, patience=0.1)
        assert time.monotonic() - start > 0.6


def test_first_host_without_an_answer_is_given_up(monkeypatch):
    def unreachable(*_args, **_kwargs):
        raise OSError(113, "No route to host")

    monkeypatch.setattr(socket, "create_connection", unreachable)
    with pytest.raises(TrainingError, match=r"did not answer for 0\.1 s"):
        wait_until_open("198.51.100.1", 29500, patience=0.1)


def test_hostfile_that_is_a_device_is_refused():
    with pytest.raises(ValueError, match=r"got /dev/zero .*not an ordinary file"):
        read_hosts("/dev/zero", 1)
