"""What a figure was measured on."""

import os
import platform
from typing import Any

import torch
import transformers


def describe_machine() -> dict[str, Any]:
    """Cores, threads and versions, for a report."""
    return {
        "num_cores": os.cpu_count(),
        "num_threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def show_machine(machine: dict[str, Any]) -> None:
    """Print what `describe_machine` found, on one line."""
    print(
        f"{machine['num_cores']} cores, {machine['num_threads']} threads, {machine['processor']}, "
        f"{machine['device']} | torch {machine['torch']}, transformers {machine['transformers']}"
    )
