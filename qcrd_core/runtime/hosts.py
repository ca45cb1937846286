"""The hosts that train together: who they are, which of them this one is, how they meet.

    training.hosts: [node1, node2]     the first runs the flow, the others `qcrd join`
    training.hosts: hosts.txt          a hostfile, as MPI and DeepSpeed read it: `node1 slots=2`
    training.hosts: slurm              the nodes of this Slurm job

They share the store and nothing else. Ranks talk without encryption or password, as torch's do:
only in a network that one trusts.
"""

import os
import re
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from qcrd_core.errors import ConfigError, TrainingError

_POLL_SECONDS = 0.5
_LEFTOVER_SECONDS = 30.0
RENDEZVOUS_PORT = 29500
"""Port of the first host at which the others come in: torch's own. One training takes the whole
machine, so no second one asks for it."""
_LINE = re.compile(r"(?P<host>\S+)(\s+slots=(?P<slots>\d+))?")


def read_hosts(value: str, num_processes: Any) -> list[str]:
    """Read the hosts of a hostfile or of the Slurm job.

    Args:
        value: `slurm`, or the hostfile's path.
        num_processes: Ranks a host, which `slots` must agree with.

    Returns:
        Names or addresses, in order.

    Raises:
        ValueError: If there is no such job or file, or a line breaks a rule.
    """
    if value == "slurm":
        return _slurm_hosts()
    try:
        lines = Path(value).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        msg = f"training.hosts must be a list, slurm, or a readable hostfile; got {value} ({error})"
        raise ValueError(msg) from error
    hosts = []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        found = _LINE.fullmatch(text)
        if found is None and text:
            msg = f"A hostfile must hold lines `host slots=N`; got {text!r} ({value}:{number})"
            raise ValueError(msg)
        if found is not None:
            slots = found["slots"]
            if slots is not None and int(slots) != num_processes:
                msg = (
                    f"slots must be training.num_processes, {num_processes}, on each host; got "
                    f"{slots} ({value}:{number})"
                )
                raise ValueError(msg)
            hosts.append(found["host"])
    return hosts


def _slurm_hosts() -> list[str]:
    nodes = os.environ.get("SLURM_JOB_NODELIST")
    if nodes is None:
        msg = (
            "training.hosts=slurm must be used within a Slurm job; SLURM_JOB_NODELIST is not set: "
            "start qcrd with srun, or list the hosts"
        )
        raise ValueError(msg)
    try:
        listed = subprocess.run(
            ["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        msg = f"training.hosts=slurm must find the program scontrol; got {error}: list the hosts"
        raise ValueError(msg) from error
    return listed.stdout.split()


def check_hosts(hosts: Sequence[str]) -> None:
    """Refuse hosts that cannot train together, before any work; the flow runs on the first.

    Args:
        hosts: `training.hosts`.

    Raises:
        ConfigError: If a name is unknown, two mean one host, the first is not this one, or no route
            leads to another.
    """
    if len(hosts) < 2:
        return
    if own_place(hosts) != 0:
        msg = (
            "training.hosts must begin with the host that runs the flow, this one; got "
            f"{', '.join(hosts)}. Change the order, or run `qcrd join` here."
        )
        raise ConfigError(msg)
    for host in hosts[1:]:
        _address_towards(host)


def own_place(hosts: Sequence[str]) -> int:
    """Which of the hosts this one is.

    Args:
        hosts: `training.hosts`, at least one.

    Returns:
        Its place, from 0.

    Raises:
        ConfigError: If a name is unknown, two mean one host, or none is this one.
    """
    known: dict[str, str] = {}
    for host in hosts:
        for address in _addresses(host):
            if known.setdefault(address, host) != host:
                msg = (
                    f"training.hosts must name each host once; {known[address]} and {host} both "
                    f"are {address}. Take one of them out."
                )
                raise ConfigError(msg)
    here = {a.address for listed in psutil.net_if_addrs().values() for a in listed}
    own = {host for address, host in known.items() if address in here or address[:4] == "127."}
    if len(own) > 1:
        names = " and ".join(sorted(own))
        msg = f"training.hosts must name each host once; {names} both are this host."
        raise ConfigError(msg)
    if not own:
        msg = (
            f"training.hosts must name this host, {socket.gethostname()}; got {', '.join(hosts)}. "
            "Use a name or an address that this host has."
        )
        raise ConfigError(msg)
    return list(hosts).index(own.pop())


def _addresses(host: str) -> set[str]:
    try:
        return {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError as error:
        msg = f"training.hosts must hold known names; {host} is none ({error.strerror})."
        raise ConfigError(msg) from error


def choose_interface(peer: str) -> None:
    """Let gloo and NCCL talk through the network that leads to a peer, unless they were told.

    By themselves they take the address of this host's name, which may be the loopback's.

    Args:
        peer: Another host.

    Raises:
        ConfigError: If no route leads there.
    """
    own = _address_towards(peer)
    for name, listed in psutil.net_if_addrs().items():
        if any(a.address == own for a in listed):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
            os.environ.setdefault("NCCL_SOCKET_IFNAME", name)


def _address_towards(peer: str) -> str:
    """This host's own address on the way to another."""
    family, kind, _, _, address = socket.getaddrinfo(peer, 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        try:
            probe.connect(address)  # sends nothing: the kernel looks up the route
        except OSError as error:
            msg = (
                f"training.hosts must name hosts that can be reached; no route leads to {peer} "
                f"({error.strerror})."
            )
            raise ConfigError(msg) from error
        return str(probe.getsockname()[0])


def wait_until_open(host: str, port: int, patience: float) -> None:
    """Wait for the first host to begin a round. It may take its time, as long as it can be reached.

    Args:
        host: The first host.
        port: `RENDEZVOUS_PORT`.
        patience: Longest time without any answer, seconds.

    Raises:
        TrainingError: If it did not answer for so long, not even by a refusal.
    """
    heard = time.monotonic()
    while True:
        try:
            with socket.create_connection((host, port), timeout=5):
                return
        except ConnectionRefusedError:
            heard = time.monotonic()
        except OSError as error:
            if time.monotonic() - heard > patience:
                msg = (
                    f"The first host must be reachable; {host}:{port} did not answer for "
                    f"{patience:g} s ({error.strerror or error}). Check the network and "
                    "training.hosts, then join again."
                )
                raise TrainingError(msg) from error
        time.sleep(_POLL_SECONDS)


def wait_until_closed(host: str, port: int) -> None:
    """Wait for the first host to leave a round that is over, or else it would be joined again."""
    deadline = time.monotonic() + _LEFTOVER_SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection((host, port), timeout=5).close()
        except OSError:
            return
        time.sleep(_POLL_SECONDS / 5)
