"""What the fork server of `qcrd_core.runtime.processes` imports once for all jobs.

Only modules that start no threads when imported. polars is left to each job: its thread pool must
not be forked. No CUDA driver may be woken here, for none survives a fork: while DeepSpeed looks
around, torch shows it no device, and counts them without the driver.
"""

import os

from qcrd_core.runtime.processes import COUNT_WITHOUT_DRIVER, PASSIVE_OPENMP, has_accelerator

os.environ.update({**PASSIVE_OPENMP, **os.environ})
# Named, for DeepSpeed would look for one: on a CPU with a warning.
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
