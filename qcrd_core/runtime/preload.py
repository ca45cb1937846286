"""Imports of the fork server of `qcrd_core.runtime.processes`, made once for all jobs.

Only modules that start no threads when imported. Each job imports polars itself, because its thread
pool must not be forked. Nothing here may start a CUDA driver, because no driver survives a fork: so
torch shows no device while DeepSpeed is imported, and counts devices without the driver.
"""

import os

from qcrd_core.runtime.openmp import passive_openmp
from qcrd_core.runtime.processes import COUNT_WITHOUT_DRIVER, has_accelerator

os.environ.update(passive_openmp())
# Set, because DeepSpeed would otherwise search for an accelerator, and warn if there is none.
os.environ.setdefault("DS_ACCELERATOR", "cuda" if has_accelerator() else "cpu")
_visible = os.environ.get("CUDA_VISIBLE_DEVICES")
os.environ.update(COUNT_WITHOUT_DRIVER, CUDA_VISIBLE_DEVICES="")

import deepspeed  # noqa: E402, F401
from transformers import (  # noqa: E402, F401
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5EncoderModel,
    T5ForConditionalGeneration,
)

del os.environ["CUDA_VISIBLE_DEVICES"]
if _visible is not None:
    os.environ["CUDA_VISIBLE_DEVICES"] = _visible
