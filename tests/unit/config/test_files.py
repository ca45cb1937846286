"""Files that people or other machines wrote are read within bounds, or refused in a sentence."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
from annotated_types import Le, Lt
from pydantic import Field

from qcrd_core.config.endpoints import read_endpoints
from qcrd_core.config.files import check_ordinary, expand_user, load_yaml, parse_json
from qcrd_core.config.names import settings_of
from qcrd_core.config.reading import parse_override, read_yaml
from qcrd_core.config.run import RunConfig
from qcrd_core.data.files import read_rows
from qcrd_core.data.spec import DatasetSpec
from qcrd_core.errors import ConfigError, DataError, StoreError
from qcrd_core.store.store import Store
from tests.support.tiny_config import refusal

BOMB = "\n".join(
    ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 20))]
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: 2024-99-99", "a value that is no timestamp"),
        ("a: 2024-01-01 99:99:99", "a value that is no timestamp"),
        ("a: " + "9" * 5000, "a value that is no int"),
        ("a: 0x" + "f" * 5000, "an integer of more than 64 bits"),
        ("a: !!int foo", "a value that is no int"),
        ("a: !!int ''", "a value that is no int"),
        ("a: !!bool foo", "a value that is no bool"),
        ("a: !!timestamp foo", "a value that is no timestamp"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("[" * 100_000, "more than 32 levels or 50,000 values"),
        ("- " * 1000 + "x", "more than 32 levels or 50,000 values"),
        ("a: &a [*a]", "more than 32 levels or 50,000 values"),
        (BOMB, "more than 32 levels or 50,000 values"),
        ("x" * 300_000, "300,000 bytes, more than 262,144"),
        (r'a: "\ud800"', "with a character that no file may hold"),
        (r'a: "\0"', "with a character that no file may hold"),
        (r'"a\e": 1', "which is no plain text"),
        ("1: a", "the key 1, which is no plain text"),
        ("2024-01-01: a", "which is no plain text"),
        (b"\xff\xfea", "truncated data"),
        (b"a: \xff", "invalid start byte"),
    ],
)
def test_odd_yaml_is_refused_soon_and_in_one_line(text, reason):
    start = time.process_time()
    with pytest.raises(ValueError, match=reason) as caught:
        load_yaml(text)
    assert "\n" not in str(caught.value)
    assert time.process_time() - start < 10


def test_yaml_with_anchors_is_read():
    assert load_yaml("a: &a {b: 1}\nc: {<<: *a, d: 2}") == {"a": {"b": 1}, "c": {"b": 1, "d": 2}}


def test_odd_override_is_refused():
    with pytest.raises(
        ConfigError, match=r"run\.name must be given a YAML value; got '2024-99-99'"
    ):
        parse_override("run.name=2024-99-99")
    with pytest.raises(ConfigError, match=r"must have the form section\.key=value"):
        parse_override("run.\udcff=1")


@dataclass(frozen=True)
class Pair:
    name: Annotated[str, Field(pattern="^[a-z]+$")]
    number: int


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "must be valid JSON; got EOF"),
        (b'{"name": "a", "num', "must be valid JSON; got EOF"),
        (b"[" * 100_000, "must be valid JSON; got recursion limit exceeded"),
        (b'{"name": "\xff"}', "must be valid JSON; got invalid unicode"),
        (b'{"name": "\\ud800"}', "must be valid JSON; got "),
        (b"[]", "must be as qcrd wrote it; got another content: Input should be"),
        (b'{"name": "../a", "number": 1}', "name: String should match pattern"),
        (b'{"name": "a"}', r"number: Field required\. Restore or delete it\."),
        (b'{"name": "a", "number": ' + b"9" * 5000 + b"}", "must be valid JSON; got number out of"),
        (b'{"name": "a", "number": "\\u001b"}', "number: Input should be"),
    ],
)
def test_json_of_another_shape_is_refused_in_one_line(content, reason):
    with pytest.raises(StoreError, match=f"^a.json .*{reason}") as caught:
        parse_json(content, Pair, "a.json")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.fixture
def pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    return tmp_path / "pipe.jsonl"


def test_pipes_devices_and_folders_are_no_files(tmp_path, pipe):
    device = tmp_path / "zero.jsonl"
    device.symlink_to("/dev/zero")
    for path, reason in ((pipe, "a pipe or a device"), (device, "a pipe"), (tmp_path, "a folder")):
        with pytest.raises(OSError, match=reason):
            check_ordinary(path)
    with pytest.raises(OSError, match="null"):
        check_ordinary(Path("a\0b"))
    with pytest.raises(DataError, match="must be a readable file; got a pipe or a device"):
        read_rows(pipe)
    with pytest.raises(ConfigError, match="must be a readable YAML file; got a pipe or a device"):
        read_yaml(pipe)
    with pytest.raises(ConfigError, match="list of servers; got a pipe or a device"):
        read_endpoints(pipe)
    with pytest.raises(StoreError, match=r"pipe\.jsonl could not be read: a pipe or a device"):
        Store(str(tmp_path), tmp_path).read_bytes("pipe.jsonl")


def test_folder_of_an_unknown_user_is_a_name_like_any_other():
    assert expand_user("~nobody-has-this-name/x") == Path("~nobody-has-this-name/x")


@pytest.mark.parametrize("model", [RunConfig, DatasetSpec], ids=lambda model: model.__name__)
def test_every_number_has_an_upper_bound(model):
    numbers = {
        name: field
        for name, setting in settings_of(model).items()
        for field in setting.fields
        if {int, float} & set(getattr(field.annotation, "__args__", (field.annotation,)))
    }
    assert len(numbers) > 3
    assert [
        n for n, f in numbers.items() if not any(isinstance(m, Le | Lt) for m in f.metadata)
    ] == []


@pytest.mark.parametrize(
    ("sections", "rule"),
    [
        ({"training": {"learning_rate": float("inf")}}, "learning_rate must be finite number"),
        ({"loss": {"beta": float("nan")}}, "loss.beta must be finite number"),
        ({"teacher": {"model": "none", "num_samples": 10**9}}, "less than or equal to 1000"),
        ({"run": {"seed": 10**30}}, "run.seed must be "),
        ({"run": {"name": "x" * 300}}, "run.name must be "),
        ({"training": {"num_rounds": 1001}}, "less than or equal to 1000"),
    ],
)
def test_settings_without_bounds_are_refused(sections, rule):
    assert rule in refusal(**sections)
