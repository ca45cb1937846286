"""What a student's rationales cost against `generate` of transformers, same checkpoint, same run.

    .venv/bin/python -m benchmarks.negatives [--architecture t5] [--repeats 5] [--json FILE]

The quickstart's student learns from the shipped samples by `dss` for its four rounds, then writes
one rationale a training question at temperature 1.5, in batches of 128, at most 64 tokens, as the
negatives are made. Two ways, in turn, so that a disturbance hits both:

- qcrd: `qcrd_core.student.decoding.write`. A text that has ended makes room for the next question.
- hf: `generate`, batch by batch in the table's order, padded to the longest, until the last text of
  a batch has ended.

Counted are tokens of the texts, the end token included, not padding. Both draw from the same
distribution, without truncation; mean lengths are printed, and greedy texts must be the same but
for ties in rounding. The median of the repeats counts. Target: 2 x the tokens per second of hf.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import describe_machine, show_machine
from benchmarks.word_problems import prepare_run
from qcrd_core.runtime.processes import has_accelerator
from qcrd_core.stages.rounds import train_round
from qcrd_core.student.decoding import DecodeOptions, Written, write
from qcrd_core.student.metadata import EXPLAIN_PREFIX
from qcrd_core.student.tokenizer import load_tokenizer
from qcrd_core.student.weights import load_model

TARGET = 2.0

LEAST_SAME = 0.99
"""Least share of equal greedy texts."""

BATCH_SIZE, MAX_NEW_TOKENS, TEMPERATURE = 128, 64, 1.5

Way = Callable[[float | None, int], list[Written]]
"""(temperature, None is greedy; seed) -> a text of each prompt."""


def main() -> int:
    """Train, compare greedy texts, time, print the table.

    Returns:
        Exit code: 1 if greedy texts differ or the ratio is below --require.
    """
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "student__model__architecture": arguments.architecture,
            "training__num_rounds": arguments.rounds,
        }
        context = prepare_run(Path(folder), **settings)
        for round_ in range(arguments.rounds):
            train_round(context, round_)
        student = context.store.fetch_folder(context.paths.student(arguments.rounds - 1))
        model, tokenizer = load_model(student), load_tokenizer(student)
        prefix = EXPLAIN_PREFIX
        questions = context.read_questions("train")["question"]
    if has_accelerator():
        model.to("cuda")
    ways = make_ways(model, tokenizer, [prefix + question for question in questions])
    greedy = [[written.text for written in way(None, 0)] for way in ways.values()]
    same_share = statistics.mean(a == b for a, b in zip(*greedy, strict=True))
    report = {
        "student": arguments.architecture,
        "num_rounds": arguments.rounds,
        "num_weights": sum(weight.numel() for weight in model.parameters()),
        "num_texts": len(questions),
        "same_greedy_share": same_share,
        "machine": describe_machine(),
        **_figures(_measure(ways, arguments.repeats)),
    }
    _show(report)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    is_slow = arguments.require is not None and report["ratio"] < arguments.require
    return int(is_slow or same_share < LEAST_SAME)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", choices=("t5", "llama"), default="t5", help="student")
    parser.add_argument("--rounds", type=int, default=4, help="rounds of training before")
    parser.add_argument("--repeats", type=int, default=5, help="timed passes of each way")
    parser.add_argument("--require", type=float, help="exit with 1 below this ratio")
    parser.add_argument("--json", type=Path, help="JSON file for the figures")
    return parser.parse_args()


def make_ways(model: Any, tokenizer: Any, prompts: list[str]) -> dict[str, Way]:
    """Prepare both ways on one model and the same prompts.

    Args:
        model: T5-type or causal Hugging Face model.
        tokenizer: Its tokenizer.
        prompts: Prompts with their prefix.

    Returns:
        Name of the way -> the way.
    """
    plain = deepcopy(model)  # `write` puts faster modules into the model that it is given

    def qcrd(temperature: float | None, seed: int) -> list[Written]:
        options = DecodeOptions(MAX_NEW_TOKENS, BATCH_SIZE, temperature, seed)
        return write(model, tokenizer, prompts, options, lambda _: None)

    def hf(temperature: float | None, seed: int) -> list[Written]:
        torch.manual_seed(seed)
        written = []
        for first in range(0, len(prompts), BATCH_SIZE):
            written += generate(plain, tokenizer, prompts[first : first + BATCH_SIZE], temperature)
        return written

    return {"qcrd": qcrd, "hf": hf}


@torch.no_grad()
def generate(
    model: Any, tokenizer: Any, prompts: list[str], temperature: float | None
) -> list[Written]:
    """The plain way for one batch.

    Args:
        model: T5-type or causal Hugging Face model.
        tokenizer: Its tokenizer.
        prompts: Of one batch.
        temperature: None is greedy.

    Returns:
        A text of each prompt.
    """
    is_seq2seq = model.config.is_encoder_decoder
    end = tokenizer.eos_token if is_seq2seq else ""
    side = "right" if is_seq2seq else "left"
    batch = tokenizer(
        [prompt + end for prompt in prompts],
        padding=True,
        padding_side=side,
        add_special_tokens=False,
        return_tensors="pt",
    ).to(model.device)
    sampling = {"do_sample": False}
    if temperature is not None:
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0}
    output = model.generate(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        max_new_tokens=MAX_NEW_TOKENS,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **sampling,
    )
    start = 1 if is_seq2seq else batch["input_ids"].shape[1]
    written = []
    for tokens in output[:, start:].tolist():
        is_finished = tokenizer.eos_token_id in tokens
        kept = tokens[: tokens.index(tokenizer.eos_token_id)] if is_finished else tokens
        text = tokenizer.decode(kept, skip_special_tokens=True).strip()
        written.append(Written(text, len(kept), is_finished))
    return written


def _measure(ways: dict[str, Way], num_repeats: int) -> dict[str, list[dict[str, float]]]:
    """Tokens per second, mean length and share of cut texts of each pass."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for repeat in range(num_repeats):
        # Each way goes first every other time. Greedy texts have warmed both up.
        for name in sorted(ways, reverse=repeat % 2 == 0):
            start, cpu_start = time.perf_counter(), time.process_time()
            written = ways[name](TEMPERATURE, repeat)
            seconds, cpu = time.perf_counter() - start, time.process_time() - cpu_start
            lengths = [text.num_tokens + text.is_finished for text in written]
            runs[name].append(
                {
                    "seconds": seconds,
                    "tokens_per_second": sum(lengths) / seconds,
                    "tokens_per_cpu_second": sum(lengths) / cpu,
                    "mean_length": statistics.mean(lengths),
                    "cut_share": statistics.mean(not text.is_finished for text in written),
                }
            )
    return runs


def _figures(runs: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    medians = {
        name: {key: statistics.median(run[key] for run in of_one) for key in of_one[0]}
        for name, of_one in runs.items()
    }
    ratio, cpu_ratio = (
        medians["qcrd"][key] / medians["hf"][key]
        for key in ("tokens_per_second", "tokens_per_cpu_second")
    )
    return {
        "medians": medians,
        "ratio": ratio,
        "cpu_ratio": cpu_ratio,
        "target": TARGET,
        "runs": runs,
    }


def _show(report: dict[str, Any]) -> None:
    print(
        f"{'way':<5} {'tokens/s':>9} {'slowest':>8} {'fastest':>8} {'mean length':>12} {'cut':>5}"
    )
    for name, median in report["medians"].items():
        rates = [run["tokens_per_second"] for run in report["runs"][name]]
        print(
            f"{name:<5} {median['tokens_per_second']:>9,.0f} {min(rates):>8,.0f} "
            f"{max(rates):>8,.0f} {median['mean_length']:>12.1f} {median['cut_share']:>5.0%}"
        )
    print(
        f"qcrd / hf {report['ratio']:.2f} x, by CPU time {report['cpu_ratio']:.2f} x; "
        f"target {TARGET:g} x"
    )
    print(f"Greedy texts equal: {report['same_greedy_share']:.1%} (at least {LEAST_SAME:.0%}).")
    print(
        f"{report['student']} student of {report['num_weights'] / 1e6:.2f} M weights, "
        f"{report['num_rounds']} rounds | "
        f"{report['num_texts']} questions, batches of {BATCH_SIZE}, at most {MAX_NEW_TOKENS} "
        f"tokens, temperature {TEMPERATURE:g}"
    )
    show_machine(report["machine"])


if __name__ == "__main__":
    sys.exit(main())
