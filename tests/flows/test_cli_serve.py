"""What `qcrd serve` refuses before it loads a student, and its key."""

import socket
import stat

import pytest

from flows.commands.serve import bind, read_key, serve
from qcrd_core.errors import ConfigError


def test_key_is_random_kept_and_for_this_user_alone(tmp_path):
    file = tmp_path / "below" / "key"
    key = read_key(file)
    assert len(key) >= 40
    assert read_key(file) == key != read_key(tmp_path / "other")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"", b"two words", b"\xff\xfe"])
def test_key_file_without_a_key_is_refused(tmp_path, content):
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="--key-file must"):
        read_key(file)


def test_address_in_use_is_refused():
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            ConfigError, match=f"got 127.0.0.1 and {port} \\(Address already in use"
        ):
            bind("127.0.0.1", port)


def test_unknown_host_is_refused():
    with pytest.raises(ConfigError, match="must be a free address of this machine; got 256"):
        bind("256.0.0.1", 80)


@pytest.mark.parametrize(
    ("option", "value", "rule"),
    [
        ("--port", 0, ">= 1"),
        ("--port", 65_536, "<= 65535"),
        ("--batch-size", 0, ">= 1"),
        ("--batch-size", 65_537, "<= 65536"),
        ("--max-waiting", 0, ">= 1"),
        ("--max-waiting", 1_000_001, "<= 1000000"),
    ],
)
def test_number_out_of_range_is_refused(qcrd, tmp_path, option, value, rule):
    key = tmp_path / "key"
    code, _, err = qcrd("serve", "student", "--key-file", key, option, value)
    assert code == 2
    assert f'Invalid value "{value}" for {option}. Must be {rule}' in err
    assert not key.exists()


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"teacher": "http://t/v1"}, "must be given together"),
        ({"target_precision": 0.9}, "must be given together"),
        (
            {"teacher": "http://t/v1", "target_precision": 95},
            r"between 0 and 1, as in 0.95; got 95",
        ),
        ({"capture": True}, "--capture keeps questions in a store, so it needs --store"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(tmp_path, settings, match):
    with pytest.raises(ConfigError, match=match):
        serve("student", key_file=tmp_path / "key", **settings)


def test_name_without_a_store_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ConfigError, match="got 'invoices' without --store"):
        serve("invoices", port=port)
