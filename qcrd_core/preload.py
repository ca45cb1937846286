"""What the fork server of `qcrd_core.processes` imports once for all jobs on a CPU machine.

Only modules that start no threads when imported. polars is left to each job: its thread pool must
not be forked.
"""

import os

# This server runs only where no accelerator is; DeepSpeed would look for one and warn.
os.environ.setdefault("DS_ACCELERATOR", "cpu")

import deepspeed  # noqa: F401
from transformers import (  # noqa: F401
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5EncoderModel,
    T5ForConditionalGeneration,
)
