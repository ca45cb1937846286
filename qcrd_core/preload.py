"""What the fork server of `qcrd_core.processes` imports once for all jobs on a CPU machine.

Only modules that start no threads when imported. polars is left to each job: its thread pool must
not be forked.
"""

import deepspeed  # noqa: F401
from transformers import (  # noqa: F401
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5EncoderModel,
    T5ForConditionalGeneration,
)
