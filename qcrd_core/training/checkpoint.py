"""Checkpoints from which any number of ranks and any ZeRO stage can resume.

A checkpoint is a published folder: `state.json`, and safetensors files with the whole float32
weight and the two Adam moments of each trained parameter, under the parameter's name. DeepSpeed's
own checkpoints have one file per rank and need the same number of ranks. Only rank 0 writes, so the
hosts share nothing but the store; all ranks take part in gathering the tensors.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
)
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, distributed, nn

from qcrd_core.config.files import parse_json
from qcrd_core.errors import TrainingError
from qcrd_core.store.store import Store

_STATE = "state.json"
_MOMENTS = ("exp_avg", "exp_avg_sq")
_FILE_BYTES = 2**30
"""Size of a file, and thus about the most of a checkpoint that rank 0 holds in memory."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint found in the store."""

    folder: Path
    """Its folder on this host."""
    state: dict[str, Any]
    """The state that was passed to `save_checkpoint`."""
    files: dict[str, Path]
    """The file of each tensor, by `weight/<parameter>` or `<moment>/<parameter>`."""

    def load_weights(self, module: nn.Module) -> None:
        """Load the weights into a module, before an engine wraps it.

        Args:
            module: A module with the same parameters.

        Raises:
            TrainingError: If its parameters differ.
        """
        parameters = _learning(module)
        stored = {name.removeprefix("weight/") for name in self.files if name[:7] == "weight/"}
        different = sorted(stored ^ parameters.keys())
        if different:
            msg = (
                f"The checkpoint in {self.folder} does not fit the student: they differ in "
                f"{different[0]}. If an earlier version of qcrd wrote it, delete the run's folder "
                "and run again; the teacher's samples are stored elsewhere and are kept."
            )
            raise TrainingError(msg)
        for name, value in self._read("weight"):
            parameters[name].data.copy_(value)

    def load_optimizer(self, engine: Any) -> None:
        """Load the moments, and the float32 masters of bfloat16 weights, into a new engine.

        Args:
            engine: Made from the module of `load_weights`; has taken no step yet.
        """
        parameters, step = _learning(engine.module), torch.tensor(float(self.state["global_step"]))
        _start_moments(engine.optimizer, step)
        for key in ("weight", *_MOMENTS):
            for name, value in self._read(key):
                if _is_sharded(parameters[name]):
                    _set_own_part(parameters[name], key, value)
                elif key != "weight":  # `load_weights` has set the weight itself
                    moments = engine.optimizer.state[parameters[name]]
                    device = parameters[name].device
                    moments |= {"step": step.to(device, copy=True), key: value.to(device)}

    def _read(self, key: str) -> Iterator[tuple[str, Tensor]]:
        """Parameters and their values, file by file."""
        names = [name for name in self.files if name.startswith(f"{key}/")]
        for path in dict.fromkeys(self.files[name] for name in names):
            with safe_open(path, "pt") as stored:
                for name in names:
                    if self.files[name] == path:
                        yield name.removeprefix(f"{key}/"), stored.get_tensor(name)


def save_checkpoint(engine: Any, store: Store, folder: str, state: dict[str, Any]) -> None:
    """Write a resumable checkpoint atomically, then delete the older ones of the round.

    All ranks call this.

    Args:
        engine: The DeepSpeed engine, after a step, on an accumulation boundary.
        store: The store.
        folder: `RunPaths.engine` of the round.
        state: JSON-able; must hold `global_step`.
    """
    name = f"step={state['global_step']:08d}"
    temporary = store.local(folder) / f"_tmp-{name}"
    is_first = distributed.get_rank() == 0
    if is_first:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    batch: dict[str, Tensor] = {}
    numbers = count()
    # Every rank iterates, because gathering a sharded tensor is a collective; only rank 0 keeps it.
    for key, tensor in _whole(engine):
        if is_first:
            batch[key] = tensor.cpu().contiguous()
            if sum(t.nbytes for t in batch.values()) >= _FILE_BYTES:
                save_file(batch, temporary / f"{next(numbers):05d}.safetensors")
                batch = {}
    if is_first:
        save_file(batch, temporary / f"{next(numbers):05d}.safetensors")
        (temporary / _STATE).write_text(json.dumps(state), encoding="utf-8")
        store.publish_folder(temporary, f"{folder}/{name}")
        # Only now that the new checkpoint is complete: a crash in between leaves two, never none.
        for older in store.list(folder):
            if older != name:
                store.delete(f"{folder}/{older}")
    distributed.barrier()


def find_checkpoint(store: Store, folder: str) -> Checkpoint | None:
    """Find the newest complete checkpoint of a round. All ranks call this.

    Args:
        store: The store.
        folder: `RunPaths.engine` of the round.

    Returns:
        The checkpoint, copied to this host; None if the round has none.

    Raises:
        StoreError: If a file differs from the published one.
    """
    # Rank 0 chooses for all, because hosts may see the newest entry of a network folder at
    # different times.
    found: list[str | None] = [None]
    if distributed.get_rank() == 0:
        names = [n for n in store.list(folder) if store.is_published(f"{folder}/{n}")]
        found = [names[-1] if names else None]
    distributed.broadcast_object_list(found)
    if found[0] is None:
        return None
    local = store.fetch_folder(f"{folder}/{found[0]}")
    files: dict[str, Path] = {}
    for path in sorted(local.glob("*.safetensors")):
        with safe_open(path, "pt") as stored:
            files |= dict.fromkeys(stored.keys(), path)
    state = parse_json((local / _STATE).read_bytes(), dict[str, Any], str(local / _STATE))
    return Checkpoint(local, state, files)


def _learning(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def _is_sharded(parameter: nn.Parameter) -> bool:
    """Whether ZeRO splits its float32 weight and moments over the ranks."""
    return hasattr(parameter, "ds_id") or hasattr(parameter, "_hp_mapping")


def _whole(engine: Any) -> Iterator[tuple[str, Tensor]]:
    """Whole weights and moments, one by one; gathering each is a collective of all ranks."""
    for name, parameter in _learning(engine.module).items():
        if _is_sharded(parameter):
            yield f"weight/{name}", safe_get_full_fp32_param(parameter)
            for key in _MOMENTS:
                yield f"{key}/{name}", safe_get_full_optimizer_state(parameter, key)
        else:
            yield f"weight/{name}", parameter.detach()
            for key in _MOMENTS:
                # A parameter that has not received a gradient yet has no moments.
                if parameter in engine.optimizer.state:
                    yield f"{key}/{name}", engine.optimizer.state[parameter][key]


def _start_moments(optimizer: Any, step: Tensor) -> None:
    """Under ZeRO, make the zero moments that Adam would make in its first step."""
    for name in ("fp32_partitioned_groups_flat", "single_partition_of_fp32_groups"):
        for flat in getattr(optimizer, name, ()):
            optimizer.optimizer.state[flat] = {
                "step": step.to(flat.device, copy=True),
                **{key: torch.zeros_like(flat, requires_grad=False) for key in _MOMENTS},
            }
    if hasattr(optimizer, "_lazy_init_hp_params_optimizer_state"):
        optimizer._lazy_init_hp_params_optimizer_state()


def _set_own_part(parameter: Any, key: str, value: Tensor) -> None:
    """Set this rank's part of a whole weight or moment."""
    if not hasattr(parameter, "ds_id"):
        if key == "weight":
            safe_set_full_fp32_param(parameter, value)
        else:
            safe_set_full_optimizer_state(parameter, value, key)
        return
    # Stage 3 splits each parameter into equal parts and pads the last one. DeepSpeed's function for
    # whole tensors fails if padding is needed, so the part is cut here.
    size = parameter.ds_tensor.numel()
    padding = size * distributed.get_world_size() - value.numel()
    padded = nn.functional.pad(value.flatten(), (0, padding))
    own = padded.narrow(0, size * distributed.get_rank(), size)
    if key == "weight":
        safe_set_local_fp32_param(parameter, own)
    else:
        safe_set_local_optimizer_state(parameter, own, key)
