"""The hosts that train together: their names, this host's place, and the rendezvous.

    training.hosts: [node1, node2]     the first runs the flow, the others `qcrd join`
    training.hosts: hosts.txt          a hostfile, as MPI and DeepSpeed read it: `node1 slots=2`
    training.hosts: slurm              the nodes of this Slurm job

The hosts share only the store. Ranks communicate without encryption or password, as torch does, so
the network must be trusted.
"""

import errno
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
        num_processes: Ranks per host; `slots` must be equal to it.

    Returns:
        Names or addresses, in order.

    Raises:
        ValueError: If there is no such job or file, or a line breaks a rule.
    """
    if value == "slurm":
        return _slurm_hosts()
    try:
        lines = _lines(Path(value))
    except (OSError, UnicodeDecodeError) as error:
        msg = f"training.hosts must be a list, slurm, or a readable hostfile; got {value} ({error})"
        raise ValueError(msg) from error
    hosts = []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        found = _LINE.fullmatch(text)
        if found is None and text:
            msg = f"A hostfile line must be `host slots=N`; got {text!r} ({value}:{number})"
            raise ValueError(msg)
        if found is not None:
            slots = found["slots"]
            if slots is not None and int(slots) != num_processes:
                msg = (
                    f"slots must equal training.num_processes, {num_processes}; got {slots} "
                    f"({value}:{number})"
                )
                raise ValueError(msg)
            hosts.append(found["host"])
    return hosts


def _lines(path: Path) -> list[str]:
    # A pipe could make us wait forever, and a device never ends.
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not an ordinary file")
    return path.read_text(encoding="utf-8").splitlines()


def _slurm_hosts() -> list[str]:
    nodes = os.environ.get("SLURM_JOB_NODELIST")
    if nodes is None:
        msg = (
            "training.hosts=slurm applies only within a Slurm job; SLURM_JOB_NODELIST is not set. "
            "Start qcrd with srun, or list the hosts"
        )
        raise ValueError(msg)
    try:
        listed = subprocess.run(
            ["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        msg = f"training.hosts=slurm needs the program scontrol; got {error}. List the hosts"
        raise ValueError(msg) from error
    return listed.stdout.split()


def check_hosts(hosts: Sequence[str]) -> None:
    """Reject hosts that cannot train together, before any work; the flow runs on the first host.

    Args:
        hosts: `training.hosts`.

    Raises:
        ConfigError: If a name is unknown, two names mean the same host, the first is not this host,
            or no route leads to another host.
    """
    if len(hosts) < 2:
        return
    if own_place(hosts) != 0:
        msg = (
            "training.hosts must begin with this host, which runs the flow; got "
            f"{', '.join(hosts)}. Change the order, or run `qcrd join` here."
        )
        raise ConfigError(msg)
    for host in hosts[1:]:
        _address_towards(host)


def own_place(hosts: Sequence[str]) -> int:
    """Find this host in the list.

    Args:
        hosts: `training.hosts`, at least one.

    Returns:
        Its place, from 0.

    Raises:
        ConfigError: If a name is unknown, two names mean the same host, or none means this host.
    """
    known: dict[str, str] = {}
    for host in hosts:
        for address in _addresses(host):
            if known.setdefault(address, host) != host:
                msg = (
                    f"training.hosts must name each host once; {known[address]} and {host} are "
                    f"both {address}. Remove one of them."
                )
                raise ConfigError(msg)
    here = {a.address for listed in psutil.net_if_addrs().values() for a in listed}
    own = {host for address, host in known.items() if address in here or address[:4] == "127."}
    if len(own) > 1:
        names = " and ".join(sorted(own))
        msg = f"training.hosts must name each host once; {names} are both this host. Remove one."
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
        msg = (
            f"training.hosts must hold names that this host can resolve; got {host} "
            f"({error.strerror}). Correct the name, or use an address."
        )
        raise ConfigError(msg) from error


def choose_interface(peer: str) -> None:
    """Let gloo and NCCL use the network that leads to a peer, unless the user chose one.

    By default they use the address of this host's name, which may be the loopback address.

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
    """This host's address on the route to another host."""
    family, kind, _, _, address = socket.getaddrinfo(peer, 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        try:
            probe.connect(address)  # sends nothing: the kernel looks up the route
        except OSError as error:
            msg = (
                f"training.hosts must name reachable hosts; no route leads to {peer} "
                f"({error.strerror}). Check the network and the name."
            )
            raise ConfigError(msg) from error
        return str(probe.getsockname()[0])


def wait_until_open(host: str, port: int, patience: float) -> None:
    """Wait until the first host begins a round, for as long as it can be reached.

    Args:
        host: The first host.
        port: `RENDEZVOUS_PORT`.
        patience: Longest time without any answer, seconds.

    Raises:
        TrainingError: If the host did not answer for `patience` seconds.
    """
    # A refused connection is an answer too: the host is up, but the round has not begun.
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
                    f"The first host, {host}:{port}, did not answer for {patience:g} s "
                    f"({error.strerror or error}). Check the network and training.hosts, then run "
                    "`qcrd join` again."
                )
                raise TrainingError(msg) from error
        time.sleep(_POLL_SECONDS)


def wait_until_closed(host: str, port: int) -> None:
    """Wait until the first host closes a finished round; otherwise it would be joined again."""
    deadline = time.monotonic() + _LEFTOVER_SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection((host, port), timeout=5).close()
        except OSError:
            return
        time.sleep(_POLL_SECONDS / 5)
