"""The engines alone, for `benchmarks/sampling.py`: reads a JSON job, writes a JSON result.

    <python with vllm> benchmarks/bare_engines.py job.json result.json

Stands alone: it runs in vLLM's own environment, where qcrd is not installed.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Run one engine over the job's prompts, `repeats` times each way.

    Args:
        job: teacher, engine settings, messages, num_samples, seeds [repeats][prompts x K], ...

    Returns:
        Way of sampling -> list of {num_tokens, seconds}; texts of the first seeded repeat.
    """
    return _hf(job) if job["engine"] == "hf" else _vllm(job)


def _vllm(job: dict[str, Any]) -> dict[str, Any]:
    from vllm import LLM, SamplingParams

    engine = LLM(job["teacher"], **job["engine_settings"])
    tokenizer = engine.get_tokenizer()
    prompts = [{"prompt_token_ids": _tokens(tokenizer, messages)} for messages in job["messages"]]
    sampling = job["sampling"]
    engine.generate(prompts, SamplingParams(n=1, **sampling), use_tqdm=False)  # warm up
    num_samples = job["num_samples"]
    repeated = [prompt for prompt in prompts for _ in range(num_samples)]
    result: dict[str, Any] = {"seeded": [], "unseeded": []}
    for seeds in job["seeds"]:
        each = [SamplingParams(n=1, seed=seed, logprobs=0, **sampling) for seed in seeds]
        outputs, figure = _timed(engine, repeated, each)
        result["seeded"].append(figure)
        result.setdefault("texts", [output.outputs[0].text for output in outputs])
        several = SamplingParams(n=num_samples, **sampling)
        result["unseeded"].append(_timed(engine, prompts, several)[1])
    return result


def _timed(engine: Any, prompts: list[Any], sampling: Any) -> tuple[Any, dict[str, float]]:
    start = time.monotonic()
    outputs = engine.generate(prompts, sampling, use_tqdm=False)
    seconds = time.monotonic() - start
    num_tokens = sum(len(sample.token_ids) for output in outputs for sample in output.outputs)
    return outputs, {"num_tokens": num_tokens, "seconds": seconds}


def _hf(job: dict[str, Any]) -> dict[str, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job["teacher"], padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(job["teacher"], dtype="auto").to(device).eval()
    prompts = [_tokens(tokenizer, messages) for messages in job["messages"]]
    sampling = job["sampling"]
    num_tokens, start = 0, time.monotonic()
    for first in range(0, len(prompts), job["hf_batch_size"]):
        batch = tokenizer.pad(
            {"input_ids": prompts[first : first + job["hf_batch_size"]]}, return_tensors="pt"
        ).to(device)
        with torch.inference_mode():
            output = model.generate(
                **batch,
                do_sample=True,
                temperature=sampling["temperature"],
                top_p=sampling["top_p"],
                top_k=0,
                max_new_tokens=sampling["max_tokens"],
                num_return_sequences=job["num_samples"],
                pad_token_id=tokenizer.pad_token_id,
            )
        new = output[:, batch["input_ids"].shape[1] :]
        is_end = new == tokenizer.eos_token_id
        # A row ends with its first end token; what follows is padding.
        num_tokens += int(((is_end.cumsum(1) - is_end.int()) == 0).sum())
    return {"hf": [{"num_tokens": num_tokens, "seconds": time.monotonic() - start}]}


def _tokens(tokenizer: Any, messages: list[dict[str, str]]) -> list[int]:
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    tokens: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return tokens


if __name__ == "__main__":
    content = main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    Path(sys.argv[2]).write_text(json.dumps(content), encoding="utf-8")
