"""DeepSpeed around the objective: its configuration, exact checkpoints, export.

The DeepSpeed JSON is generated here from `TrainingSection`; its keys appear nowhere else.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import deepspeed
import torch
from torch import distributed

from qcrd_core.config_method import TrainingSection
from qcrd_core.context import RunContext
from qcrd_core.processes import has_accelerator
from qcrd_core.store import Store
from qcrd_core.student.about import FILE, StudentAbout
from qcrd_core.student.objective import QcrdObjective

_STATE = "state.json"
_TAG = "engine"


def deepspeed_config(training: TrainingSection) -> dict[str, Any]:
    """Generate DeepSpeed's settings.

    Args:
        training: Ours.

    Returns:
        What `deepspeed.initialize` takes.
    """
    return {
        "train_batch_size": training.global_batch_size,
        "train_micro_batch_size_per_gpu": training.micro_batch_size,
        "gradient_accumulation_steps": training.gradient_accumulation_steps,
        "gradient_clipping": training.gradient_clip,
        "bf16": {"enabled": training.precision == "bfloat16"},
        "zero_optimization": {"stage": training.zero_stage},
        # torch's AdamW on every device: DeepSpeed's own would be compiled at first use on a CPU.
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
    }


def start_distributed() -> None:
    """Join the process group that torchrun's agent describes in the environment."""
    if has_accelerator():
        deepspeed.init_distributed()
        return
    # DeepSpeed's shared-memory collective would be compiled for half a minute at first start. The
    # table is private to DeepSpeed: without it the build simply takes place.
    compatible = getattr(deepspeed.ops, "__compatible_ops__", {})
    compatible["deepspeed_shm_comm"] = False
    deepspeed.init_distributed("gloo")


def start_engine(objective: QcrdObjective, training: TrainingSection) -> Any:
    """Put the objective under DeepSpeed.

    Args:
        objective: Module whose forward takes a batch and returns (loss, parts).
        training: Settings.

    Returns:
        A DeepSpeed engine.
    """
    optimizer = torch.optim.AdamW(
        objective.parameters(),
        lr=training.learning_rate,
        weight_decay=training.weight_decay,
        fused=True,
    )
    engine, _, _, _ = deepspeed.initialize(
        model=objective, optimizer=optimizer, config=deepspeed_config(training)
    )
    return engine


def set_learning_rate(engine: Any, value: float) -> None:
    """Set the rate of all parameter groups; the schedule is a function of the step alone."""
    for group in engine.optimizer.param_groups:
        group["lr"] = value


def learning_rate(step: int, num_steps: int, training: TrainingSection) -> float:
    """Linear warm-up, then linear decay to 0 at `num_steps`.

    Args:
        step: Global step, from 0.
        num_steps: Steps of all rounds.
        training: Peak rate and warm-up.

    Returns:
        The rate of this step.
    """
    if step < training.warmup_steps:
        return training.learning_rate * (step + 1) / training.warmup_steps
    left = (num_steps - step) / max(1, num_steps - training.warmup_steps)
    return training.learning_rate * max(0.0, left)


def save_engine(engine: Any, store: Store, folder: str, state: dict[str, Any]) -> None:
    """Write a resumable checkpoint, whole or not at all, and drop the older ones beside it.

    Args:
        engine: The DeepSpeed engine, on an accumulation boundary. All ranks call this.
        store: Where to.
        folder: `RunPaths.engine` of the round.
        state: JSON-able; must hold `global_step`.
    """
    name = f"step={state['global_step']:08d}"
    temporary = store.local(folder) / f"_tmp-{name}"
    is_first = distributed.get_rank() == 0
    if is_first:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    distributed.barrier()
    engine.save_checkpoint(str(temporary), tag=_TAG)
    distributed.barrier()
    if is_first:
        (temporary / _STATE).write_text(json.dumps(state), encoding="utf-8")
        store.publish_folder(temporary, f"{folder}/{name}")
        for older in store.list(folder):
            if older != name:
                store.delete(f"{folder}/{older}")
    distributed.barrier()


def load_engine(engine: Any, store: Store, folder: str) -> dict[str, Any] | None:
    """Load the newest whole checkpoint of a round.

    Args:
        engine: A fresh engine of the same shape.
        store: Where from.
        folder: `RunPaths.engine` of the round.

    Returns:
        The saved state, or None when the round has no checkpoint.
    """
    names = [n for n in store.list(folder) if store.is_published(f"{folder}/{n}")]
    if not names:
        return None
    local = store.fetch_folder(f"{folder}/{names[-1]}")
    engine.load_checkpoint(str(local), tag=_TAG, load_lr_scheduler_states=False)
    state: dict[str, Any] = json.loads((local / _STATE).read_text(encoding="utf-8"))
    return state


def export_student(engine: Any, tokenizer: Any, context: RunContext, round_: int) -> None:
    """Publish the student as a plain Hugging Face folder. All ranks call this.

    Under ZeRO stage 3 the weights are gathered first.

    Args:
        engine: The engine after the round.
        tokenizer: Saved beside the weights.
        context: The run.
        round_: The round that is done.
    """
    store, rel = context.store, context.paths.student(round_)
    model = engine.module.student.model
    prefix = "student.model."
    if context.config.training.zero_stage == 3:
        whole = engine._zero3_consolidated_16bit_state_dict() or {}
        weights = {k.removeprefix(prefix): v for k, v in whole.items() if k.startswith(prefix)}
    else:
        weights = model.state_dict()
    if distributed.get_rank() == 0:
        target = store.local(rel)
        temporary = Path(target.parent, f"_tmp-{target.name}")
        shutil.rmtree(temporary, ignore_errors=True)
        weights = {name: tensor.float() for name, tensor in weights.items()}
        model.save_pretrained(temporary, state_dict=weights, safe_serialization=True)
        tokenizer.save_pretrained(temporary)
        about = StudentAbout.of(context, round_).model_dump_json(indent=2)
        (temporary / FILE).write_text(about + "\n", encoding="utf-8")
        store.publish_folder(temporary, rel)
    distributed.barrier()
