"""Prompts in the form that `teacher.api` requires, and the most that a sampling plan can cost."""

from typing import TYPE_CHECKING

import polars as pl

from qcrd_core.config.run import RunConfig
from qcrd_core.data.prompts import render_messages, render_text
from qcrd_core.data.spec import DatasetSpec
from qcrd_core.teacher.plan import SamplingPlan

if TYPE_CHECKING:  # a plan sends no request, and an HTTP client takes half a second to import
    from qcrd_core.teacher.servers.client import Prompt

BYTES_PER_TOKEN = 4
_READ = ("question_id", "question", "messages")


def estimate_tokens(
    config: RunConfig, spec: DatasetSpec, questions: pl.DataFrame, plan: SamplingPlan
) -> dict[str, int]:
    """Estimate the tokens of a plan, without a model or a tokenizer.

    Args:
        config: The run's configuration.
        spec: The data set.
        questions: Table `questions`.
        plan: The missing samples.

    Returns:
        `num_samples`; `num_prompt_tokens`, at 4 bytes per token and without the prefix cache;
        `max_tokens`, if every completion is as long as allowed.
    """
    texts = {key: rest for key, *rest in questions.select(*_READ).iter_rows()}
    size = sum(
        num_bytes(render(config, spec, *texts[key[0]]))
        for shard in plan.shards
        for key in shard.keys
    )
    return {
        "num_samples": plan.num_missing,
        "num_prompt_tokens": size // BYTES_PER_TOKEN,
        "max_tokens": plan.num_missing * config.teacher.max_new_tokens,
    }


def describe_estimate(
    config: RunConfig, spec: DatasetSpec, questions: pl.DataFrame, plan: SamplingPlan
) -> str:
    """Describe the most that a plan can use, and its cost if prices are configured.

    Args:
        config: The run's configuration.
        spec: The data set.
        questions: Table `questions`.
        plan: The missing samples.

    Returns:
        One line, for example `about 12,000 tokens of prompts, at most 64,000 sampled`.
    """
    estimate, budget = estimate_tokens(config, spec, questions, plan), config.budget
    num_prompt, num_sampled = estimate["num_prompt_tokens"], estimate["max_tokens"]
    text = f"about {num_prompt:,} tokens of prompts, at most {num_sampled:,} sampled"
    gpu_hours = budget.gpu_hours(num_sampled)
    if gpu_hours is not None:
        text += f", at most {gpu_hours:,.3g} GPU-hours"
    if budget.has_price:
        text += f", cost at most {budget.cost(num_prompt, num_sampled):,.4g}"
    limits = [
        f"{name} = {value:,g}"
        for name, value in (("max_cost", budget.max_cost), ("max_tokens", budget.max_tokens))
        if value is not None
    ]
    return f"{text} (sampling stops at budget.{' or '.join(limits)})" if limits else text


def render(config: RunConfig, spec: DatasetSpec, question: str, turns: str | None) -> "Prompt":
    """Write a question's prompt in the form that `teacher.api` requires.

    Args:
        config: The run's configuration.
        spec: The data set.
        question: Text of the question.
        turns: Its column `messages`.

    Returns:
        Messages for the chat API, a text for the completions API.
    """
    if config.teacher.api == "chat":
        is_structured = config.teacher.structured_output
        messages = render_messages(spec, question, turns, is_structured=is_structured)
        return with_system_prompt(messages, config.teacher.system_prompt)
    return render_text(spec, question)


def with_system_prompt(messages: list[dict[str, str]], system: str | None) -> list[dict[str, str]]:
    """Put `teacher.system_prompt` before a prompt, and before its own system message."""
    if system is None:
        return messages
    if messages[0]["role"] == "system":  # a model takes only one
        system = f"{system}\n\n{messages[0]['content']}"
        messages = messages[1:]
    return [{"role": "system", "content": system}, *messages]


def num_bytes(prompt: "Prompt") -> int:
    """Bytes of a prompt's texts in UTF-8, without the chat template."""
    if isinstance(prompt, str):
        return len(prompt.encode())
    return sum(len(message["content"].encode()) for message in prompt)
