"""Settings that were: old files and stores load, and runs keep the names they had.

A setting that nobody changed became a constant, in the module that uses it. Here stands the value
that all runs had: a file may still say it, and a run's name is hashed with it.
"""

from collections.abc import Mapping
from typing import Any

from qcrd_core.config.models import NUM_HEADS
from qcrd_core.config.names import Problem, UnknownSettingError

_OF_A_RUN: Mapping[str, Any] = {
    "teacher.top_p": 1.0,
    "negatives.lag_warmup": "none",
    "discriminator.update_every": 1,
    "discriminator.batch_size": 32,
    "discriminator.mask_fraction": 0.15,
    "discriminator.replace_fraction": 0.15,
    "student.lora.target_modules": "all-linear",
    "student.explain_prefix": "explain: ",
    "loss.alpha_discriminator_decay": 0.9,
    "loss.sharpness": 1.0,
    "training.weight_decay": 0.0,
    "training.gradient_clip": 1.0,
    "evaluation.num_votes": 5,
    "evaluation.sampling_temperature": 0.7,
    "evaluation.confidence": 0.95,
}
"""Part of a run's name."""
_OF_A_PLACE: Mapping[str, Any] = {
    "teacher.server.start_timeout_seconds": 900,
    "teacher.server.max_restarts": 3,
    "teacher.request_timeout_seconds": 600,
    "teacher.max_retries": 5,
    "training.rendezvous_port": 29500,
}
"""Where and how fast: no part of a run's name."""
_ARGUMENTS: Mapping[str, tuple[Any, str]] = {
    "dtype": ("auto", "--dtype={}"),
    "max_num_seqs": (None, "--max-num-seqs={}"),
    "gpu_memory_utilization": (0.9, "--gpu-memory-utilization={}"),
    "enforce_eager": (False, "--enforce-eager"),
}
"""Once keys of `teacher.server`, now arguments in its `extra_args`: (default, argument)."""
_WEIGHTS = ("student.model", "discriminator.model")


def named_as_before(content: dict[str, Any]) -> dict[str, Any]:
    """Add what was a setting to what a run's name is hashed from.

    Args:
        content: All settings of a run; changed.

    Returns:
        The same mapping.
    """
    for name, value in _OF_A_RUN.items():
        section, key = _section(content, name)
        if section is not None:
            section[key] = value
    for name in _WEIGHTS:
        weights, _ = _section(content, f"{name}.type")
        if weights is not None and weights["type"] == "scratch":
            weights |= _sizes(weights, name)
    return content


def without_fixed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Take what was a setting out of a file's content.

    Args:
        content: Nested settings, as read from YAML.

    Returns:
        A copy without the old settings.

    Raises:
        UnknownSettingError: If one has another value than the constant that replaced it.
    """
    copy: dict[str, Any] = _copied(content)
    problems = []
    for name, value in _fixed_in(copy).items():
        section, key = _section(copy, name)
        if section is not None and key in section and section.pop(key) != value:
            what = f"{name} is no longer a setting; it is fixed at {_shown(value)}"
            if name == "run.runner":
                what = f"{name} is no longer a setting; run.ray_address alone chooses Ray or not"
            problems.append(Problem(what, "Remove the line."))
    server, _ = _section(copy, "teacher.server.extra_args")
    for key, (default, argument) in _ARGUMENTS.items():
        if server is not None and key in server and (value := server.pop(key)) != default:
            what = f"teacher.server.{key} is now an argument in teacher.server.extra_args"
            remedy = f"Write extra_args: [{argument.format(value)}] in its place."
            problems.append(Problem(what, remedy))
    if problems:
        raise UnknownSettingError(problems)
    return copy


def from_store(content: Mapping[str, Any]) -> dict[str, Any]:
    """Bring the stored settings of an old run to today's places.

    Args:
        content: Nested settings of a run's config.yaml.

    Returns:
        A copy in which moved settings stand where they are read now.
    """
    copy: dict[str, Any] = _copied(content)
    # The settings beside it are what the name meant then; it may mean others now.
    copy.pop("method", None)
    discriminator = copy.get("discriminator")
    if isinstance(discriminator, dict):  # the only one before there was a choice
        discriminator.setdefault("fit", "paper")
    server, _ = _section(copy, "teacher.server.extra_args")
    if server is not None:
        moved = [
            argument.format(server[key])
            for key, (default, argument) in _ARGUMENTS.items()
            if server.get(key, default) != default
        ]
        kept = {key: value for key, value in server.items() if key not in _ARGUMENTS}
        copy["teacher"]["server"] = {**kept, "extra_args": [*moved, *server.get("extra_args", ())]}
    return copy


def _fixed_in(content: Mapping[str, Any]) -> dict[str, Any]:
    """The old settings that this content could name, and the value of each."""
    fixed = {**_OF_A_RUN, **_OF_A_PLACE}
    run, _ = _section(content, "run.runner")
    if run is not None:
        fixed["run.runner"] = "local" if run.get("ray_address") is None else "ray"
    for name in _WEIGHTS:
        weights, _ = _section(content, f"{name}.type")
        if weights is not None and weights.get("type") == "scratch":
            fixed |= {f"{name}.{key}": value for key, value in _sizes(weights, name).items()}
    return fixed


def _sizes(weights: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What of a model from scratch was a setting."""
    width = weights.get("hidden_size", 256)
    ffn_size = 2 * width if isinstance(width, int) else None
    sizes = {"ffn_size": ffn_size, "num_heads": NUM_HEADS, "vocab_size": 2048}
    return sizes if name == "student.model" else {**sizes, "architecture": "t5"}


def _section(content: Any, name: str) -> tuple[Any, str]:
    """The mapping that holds a dotted name, None if there is none, and the last key."""
    *sections, last = name.split(".")
    for key in sections:
        content = content.get(key) if isinstance(content, dict) else None
    return content if isinstance(content, dict) else None, last


def _copied(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _copied(value) for key, value in content.items()}
    return content


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
