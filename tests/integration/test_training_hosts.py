"""Two hosts, each a network namespace with an address of its own, and the link between them."""

import os
import re
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import yaml

from tests.support.distillation import command
from tests.support.training import (
    NO_DROPOUT,
    largest_difference,
    losses,
    open_tiny,
    prepare,
    settings,
    train,
    weights,
)

FIRST, SECOND = "10.97.0.1", "10.97.0.2"
TIMEOUT = 40
GRACE = 60
"""Seconds beyond `host_timeout_seconds` within which both sides have ended, as the docs say."""

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def two_hosts():
    """Names of two namespaces, linked; and how to cut and mend the link."""
    names = [f"qcrd-{os.getpid()}-{letter}" for letter in "ab"]

    def ip(*arguments):
        subprocess.run(["ip", *arguments], check=True, capture_output=True)

    started = []
    try:
        for name in names:
            ip("netns", "add", name)
        ends = ("peer", "link0", "netns", names[1])
        ip("link", "add", "link0", "netns", names[0], "type", "veth", *ends)
        for name, address in zip(names, (FIRST, SECOND), strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", "link0")
            for device in ("lo", "link0"):
                ip("-n", name, "link", "set", device, "up")
        yield SimpleNamespace(
            names=names,
            started=started,
            cut=lambda: ip("-n", names[1], "link", "set", "link0", "down"),
            mend=lambda: ip("-n", names[1], "link", "set", "link0", "up"),
        )
    finally:
        for host in started:
            host.process.kill()
            host.process.wait()
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


class _Host:
    """A program in a namespace, its output in a file."""

    def __init__(self, hosts, place, log, *arguments):
        self.log = log
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", hosts.names[place], *arguments],
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                env=environment,
            )
        hosts.started.append(self)

    def wait_for_steps(self, count):
        deadline = time.monotonic() + 240  # a busy machine is slow to start
        while len(self.output().split("'advance'")) <= count:
            assert self.process.poll() is None, self.output()
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.01)

    def end(self, seconds):
        """Exit code, and the last line."""
        code = self.process.wait(seconds)
        return code, self.output().strip().splitlines()[-1]

    def output(self):
        return self.log.read_text(encoding="utf-8", errors="replace")


def _start(hosts, folder, content, *rounds):
    """The first host, which trains rounds, and the second, which joins."""
    config = folder / "settings.yaml"
    config.write_text(yaml.safe_dump(content), encoding="utf-8")
    return (
        _start_first(hosts, folder, config, *rounds),
        _Host(hosts, 1, folder / "second.log", *command("join", "--config", config)),
    )


def _start_first(hosts, folder, config, *rounds):
    program = [sys.executable, "-m", "tests.support.training", str(config), *map(str, rounds)]
    return _Host(hosts, 0, folder / "first.log", *program)


def _settings(folder, **training):
    hosts = {"hosts": [FIRST, SECOND], "micro_batch_size": 2, "zero_stage": 2, **training}
    long = {"steps_per_round": 20, "host_timeout_seconds": 60}
    return settings(folder, student={"model": NO_DROPOUT}, training={**long, **hosts})


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same two rounds on one host."""
    context = open_tiny(
        _settings(tmp_path_factory.mktemp("alone"), hosts=[], zero_stage=0, micro_batch_size=4)
    )
    prepare(context)
    for round_ in range(2):
        train(context, round_)
    return context


@pytest.mark.namespaces
def test_two_hosts_survive_a_link_that_is_down_for_20_seconds(two_hosts, tmp_path, alone):
    content = _settings(tmp_path)
    context = open_tiny(content)
    prepare(context)
    first, second = _start(two_hosts, tmp_path, content, 0, 1)
    first.wait_for_steps(3)
    two_hosts.cut()
    time.sleep(20)
    assert len(_losses_so_far(first)) < 20
    two_hosts.mend()
    assert first.end(120)[0] == 0, first.output()
    assert second.end(60) == (
        0,
        "All rounds are trained. The first host reports the result and stores it.",
    ), second.output()
    for round_ in range(2):
        assert losses(context, round_) == pytest.approx(losses(alone, round_), abs=1e-4)
        assert largest_difference(weights(context, round_), weights(alone, round_)) < 1e-4


def _losses_so_far(host):
    return re.findall(r"loss [0-9.]+", host.output())


@pytest.mark.namespaces
def test_host_cut_off_for_good_ends_training_in_time_and_one_host_goes_on(
    two_hosts, tmp_path, alone
):
    content = _settings(tmp_path, host_timeout_seconds=TIMEOUT, checkpoint_seconds=0.001)
    context = open_tiny(content)
    prepare(context)
    first, second = _start(two_hosts, tmp_path, content, 0, 1)
    first.wait_for_steps(23)
    two_hosts.cut()
    start = time.monotonic()
    code, sentence = first.end(TIMEOUT + GRACE)
    assert code == 1
    lost = f"Training on {FIRST}, {SECOND} stopped, because a rank on this host ended: "
    assert sentence.startswith(f"TrainingError: {lost}")
    assert sentence.endswith("or continue on this host alone with training.hosts=[].")
    code, sentence = second.end(TIMEOUT + GRACE - (time.monotonic() - start))
    assert code == 1
    assert sentence.startswith(lost)

    done = len(_losses_so_far(first))
    rest = open_tiny(_settings(tmp_path, hosts=[]))
    seen = []
    train(rest, 1, seen.append)
    assert seen[0] == {"advance": seen[0]["advance"], "note": "resumed"}
    assert done - 20 - 1 <= seen[0]["advance"] < 20
    assert losses(rest, 1) == pytest.approx(losses(alone, 1), abs=1e-4)
    assert largest_difference(weights(rest, 1), weights(alone, 1)) < 1e-4


@pytest.mark.namespaces
def test_hosts_that_do_not_come_are_given_up(two_hosts, tmp_path):
    content = _settings(tmp_path, host_timeout_seconds=10)
    prepare(open_tiny(content))
    config = tmp_path / "settings.yaml"
    config.write_text(yaml.safe_dump(content), encoding="utf-8")
    first = _start_first(two_hosts, tmp_path, config, 0)
    code, sentence = first.end(400)  # its start included, slow on a busy machine
    assert code == 1
    assert sentence.startswith(
        f"TrainingError: Not all of {FIRST}, {SECOND} joined training at {FIRST}:29500 within 10 s:"
    )


def test_join_of_a_host_that_is_not_named_is_refused(tmp_path):
    config = tmp_path / "settings.yaml"
    config.write_text(yaml.safe_dump(_settings(tmp_path)), encoding="utf-8")
    ended = subprocess.run(
        command("join", "--config", config), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("training.hosts must name this host, ")
    assert len(ended.stderr.splitlines()) == 1
