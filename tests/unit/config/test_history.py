"""Files and stores of older releases: dropped, moved or explained."""

import pytest
import yaml

from qcrd_core.config.run import read_stored_config
from qcrd_core.errors import ConfigError
from tests.support.tiny_config import refusal, tiny_config

SCRATCH = {"type": "scratch", "hidden_size": 32, "num_layers": 1}
OLD = {
    "run": {"name": "tiny", "store": "s", "runner": "local"},
    "data": {"dataset": "word_problems"},
    "teacher": {
        "model": {"type": "hub", "name": "none", "revision": None},
        "server": {
            "dtype": "float32",
            "max_num_seqs": 16,
            "gpu_memory_utilization": 0.9,
            "enforce_eager": True,
            "start_timeout_seconds": 900.0,
            "max_restarts": 3,
            "extra_args": ["--seed=1"],
        },
        "top_p": 1.0,
        "request_timeout_seconds": 600.0,
        "max_retries": 5,
    },
    "negatives": {"lag_warmup": "none"},
    "discriminator": {
        "model": {
            **SCRATCH,
            "architecture": "t5",
            "ffn_size": 64,
            "num_heads": 4,
            "vocab_size": 2048,
        },
        "update_every": 1,
        "batch_size": 32,
        "mask_fraction": 0.15,
        "replace_fraction": 0.15,
    },
    "student": {"model": SCRATCH, "lora": None, "explain_prefix": "explain: "},
    "loss": {"alpha_discriminator_decay": 0.9, "sharpness": 1.0},
    "training": {"weight_decay": 0.0, "gradient_clip": 1.0, "rendezvous_port": 29500},
    "evaluation": {"num_votes": 5, "sampling_temperature": 0.7, "confidence": 0.95},
}


def test_store_of_an_older_release_is_read_with_its_settings_moved():
    config = read_stored_config(yaml.safe_dump(OLD), "config.yaml")

    server = config.teacher.server
    assert server.extra_args == (
        "--dtype=float32",
        "--max-num-seqs=16",
        "--enforce-eager",
        "--seed=1",
    )
    assert config == tiny_config(
        discriminator={"model": SCRATCH, "fit": "paper"},
        student={"model": SCRATCH},
        teacher={"model": "none", "server": server},
    )


def test_store_of_today_is_read_as_it_is():
    config = tiny_config(student={"model": "t5"}, teacher={"model": "none"})
    content = yaml.safe_dump(config.model_dump(mode="json"))

    assert read_stored_config(content, "config.yaml") == config


@pytest.mark.parametrize(
    ("name", "value", "constant"),
    [
        ("training.weight_decay", 0.1, "0"),
        ("teacher.max_retries", 9, "5"),
        ("negatives.lag_warmup", "nearest", "none"),
        ("evaluation.confidence", 0.9, "0.95"),
    ],
)
def test_old_setting_with_another_value_is_refused_with_the_constant(name, value, constant):
    section, key = name.split(".")
    content = {"teacher": {"model": "none"}, section: {key: value}}
    if section == "teacher":
        content["teacher"]["model"] = "none"

    message = refusal(**content)

    fixed = f"{name} is no longer a setting; it is fixed at {constant} (tiny.yaml)."
    assert message == f"{fixed} Remove the line."


def test_old_runner_that_contradicts_the_address_is_refused():
    assert refusal(run={"runner": "ray"}) == (
        "run.runner is no longer a setting; run.ray_address alone chooses Ray or not (tiny.yaml). "
        "Remove the line."
    )


def test_old_size_with_another_value_is_refused():
    message = refusal(student={"model": {**SCRATCH, "ffn_size": 100}})
    assert message.startswith("student.model.ffn_size is no longer a setting; it is fixed at 64 (")


def test_moved_setting_in_a_file_is_refused_with_its_new_place():
    message = refusal(teacher={"model": "none", "server": {"dtype": "bfloat16"}})
    assert message == (
        "teacher.server.dtype is now an argument in teacher.server.extra_args (tiny.yaml). "
        "Write extra_args: [--dtype=bfloat16] in its place."
    )


def test_old_settings_at_their_constants_are_no_error():
    server = {**OLD["teacher"]["server"], "dtype": "auto", "max_num_seqs": None}
    server |= {"enforce_eager": False}
    tiny_config(**{**OLD, "teacher": {**OLD["teacher"], "server": server}})


@pytest.mark.parametrize("content", ["a: [", "- 1", "\x00"], ids=["yaml", "list", "binary"])
def test_stored_settings_that_are_none_are_refused(content):
    with pytest.raises(ConfigError, match=r"config\.yaml must (be valid YAML|hold a mapping)"):
        read_stored_config(content, "config.yaml")
