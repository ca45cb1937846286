"""DeepSpeed around the objective: its configuration, the process group, the export.

The DeepSpeed JSON is generated here from `TrainingSection`; no other module uses its keys.
"""

import os
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import deepspeed
import torch
from torch import distributed
from torch.distributed import distributed_c10d

from qcrd_core.config.method import TrainingSection
from qcrd_core.config.run import RunConfig
from qcrd_core.run.context import RunContext
from qcrd_core.runtime.processes import has_accelerator
from qcrd_core.student.metadata import FILE, StudentMetadata
from qcrd_core.student.weights import make_student
from qcrd_core.training.objective import QcrdObjective

# Largest norm, as in the recipe of Distilling Step-by-Step.
_GRADIENT_CLIP = 1.0


def deepspeed_config(training: TrainingSection) -> dict[str, Any]:
    """Generate DeepSpeed's settings.

    Args:
        training: Our settings.

    Returns:
        The configuration for `deepspeed.initialize`.
    """
    is_bfloat16 = training.precision == "bfloat16"
    # Without ZeRO, DeepSpeed's bfloat16 optimiser counts one step before the first, so bfloat16
    # uses at least stage 1.
    zero: dict[str, Any] = {"stage": max(training.zero_stage, int(is_bfloat16))}
    if training.cpu_offload != "none":
        zero["offload_optimizer"] = {"device": "cpu"}
    if training.cpu_offload == "optimizer_and_weights":
        zero["offload_param"] = {"device": "cpu"}
    return {
        "train_batch_size": training.global_batch_size,
        "train_micro_batch_size_per_gpu": training.micro_batch_size,
        "gradient_accumulation_steps": training.gradient_accumulation_steps,
        "gradient_clipping": _GRADIENT_CLIP,
        # A loss that is not finite must end the round with an error; DeepSpeed would skip the step.
        "bf16": {"enabled": is_bfloat16, "check_grad_overflow": False},
        "zero_optimization": zero,
        # Use torch's AdamW on every device, because DeepSpeed would compile its own at first use on
        # a CPU.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        # Our own progress bar replaces DeepSpeed's log lines.
        "steps_per_print": 10**9,
    }


def start_distributed(training: TrainingSection) -> None:
    """Join the process group that torchrun's agent has described in the environment."""
    timeout = timedelta(seconds=training.host_timeout_seconds)
    if has_accelerator():
        deepspeed.get_accelerator().set_device(int(os.environ["LOCAL_RANK"]))
        deepspeed.init_distributed(timeout=timeout)
        return
    # Otherwise DeepSpeed compiles its shared-memory collective for half a minute at the first
    # start. The table is private to DeepSpeed; if it disappears, the build takes place again.
    compatible = getattr(deepspeed.ops, "__compatible_ops__", {})
    compatible["deepspeed_shm_comm"] = False
    deepspeed.init_distributed("gloo", timeout=timeout)


def start_engine(objective: QcrdObjective, training: TrainingSection) -> Any:
    """Wrap the objective in a DeepSpeed engine.

    Args:
        objective: Module whose forward takes a batch and returns (loss, parts).
        training: Settings.

    Returns:
        A DeepSpeed engine.
    """
    learning = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        learning,
        lr=training.learning_rate,
        weight_decay=0.0,  # as in the recipe of Distilling Step-by-Step
        fused=True,
    )
    engine, _, _, _ = deepspeed.initialize(
        model=objective, optimizer=optimizer, config=deepspeed_config(training)
    )
    # DeepSpeed also makes its own groups, which would wait half an hour for a lost host.
    for group in distributed_c10d._world.pg_map:
        distributed_c10d._set_pg_timeout(timedelta(seconds=training.host_timeout_seconds), group)
    return engine


def set_learning_rate(engine: Any, value: float) -> None:
    """Set the rate of all parameter groups; the schedule depends only on the step."""
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


def export_student(engine: Any, tokenizer: Any, context: RunContext, round_: int) -> None:
    """Publish the student as a plain Hugging Face folder. All ranks call this.

    Under ZeRO stage 3, the weights are gathered first. Adapters are merged.

    Args:
        engine: The engine after the round.
        tokenizer: Saved in the same folder as the weights.
        context: The run.
        round_: The finished round.
    """
    store, rel = context.store, context.paths.student(round_)
    model = engine.module.student.model
    prefix = "student.model."
    if context.config.training.zero_stage == 3:
        # A collective: every rank sends its parts, and only rank 0 receives the whole weights.
        whole = engine._zero3_consolidated_16bit_state_dict() or {}
        weights = {k.removeprefix(prefix): v for k, v in whole.items() if k.startswith(prefix)}
    else:
        weights = model.state_dict()
    if distributed.get_rank() == 0:
        if context.config.student.lora is not None:
            model, weights = _without_adapters(model, weights, tokenizer, context.config)
        target = store.local(rel)
        temporary = Path(target.parent, f"_tmp-{target.name}")
        shutil.rmtree(temporary, ignore_errors=True)
        weights = {name: tensor.float() for name, tensor in weights.items()}
        model.save_pretrained(temporary, state_dict=weights, safe_serialization=True)
        tokenizer.save_pretrained(temporary)
        metadata = StudentMetadata.of(context, round_).model_dump_json(indent=2)
        (temporary / FILE).write_text(metadata + "\n", encoding="utf-8")
        store.publish_folder(temporary, rel)
    # No rank may continue before the folder is published: the next stage reads it.
    distributed.barrier()


def _without_adapters(
    model: Any, weights: dict[str, torch.Tensor], tokenizer: Any, config: RunConfig
) -> tuple[Any, dict[str, torch.Tensor]]:
    """The student as it was loaded, and its weights after merging the adapters."""
    from qcrd_core.student.lora import merge_adapters  # takes seconds to import

    plain = make_student(config.student.model, tokenizer, config.run.seed)
    plain.load_state_dict({k: v.cpu() for k, v in merge_adapters(weights, model).items()})
    return plain, plain.state_dict()
