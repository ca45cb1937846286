"""Describes a plan, for `--dry-run` and for the start of a run."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from data_schemas import Rationales
from qcrd_core.config.models import LoraSection
from qcrd_core.data.concerns import concerns
from qcrd_core.report.text import teacher_name, visible
from qcrd_core.stages.plan import RunPlan
from qcrd_core.store.parts import collect, open_folder
from qcrd_core.teacher.condense import SUGGEST_ABOVE, share_too_long
from qcrd_core.teacher.rendering import describe_estimate
from qcrd_core.vote.rationales import taught

if TYPE_CHECKING:  # a plan sends no request, and an HTTP client takes half a second to import
    from qcrd_core.teacher.servers.client import Prompt

_NAME_WIDTH, _WIDTH = 16, 98
_MOST_MEASURED = 1_000


def describe_plan(plan: RunPlan) -> str:
    """Describe what a run will do, on one screen.

    Args:
        plan: From `plan_run`.

    Returns:
        Lines of `name  value`.
    """
    config, training = plan.context.config, plan.context.config.training
    counts = [f"{plan.split(name).height:,} {name}" for name in ("train", "validation", "test")]
    steps = training.steps_in_round(plan.split("train").height)
    rows = [
        ("run", f"{plan.run_id}{' (complete)' if plan.is_complete else ''}"),
        ("store", str(plan.context.store)),
        ("data set", f"{plan.spec.name}: {', '.join(counts)} questions"),
        ("teacher", teacher_name(config.teacher.model)),
        *_sampling_rows(plan),
        *_condense_rows(plan),
        (
            "rounds",
            f"{training.num_rounds} of {steps} steps = {training.num_rounds * steps:,} steps",
        ),
        (
            "batch",
            f"{training.global_batch_size} questions = {training.micro_batch_size} per device x "
            f"{training.gradient_accumulation_steps} micro-steps x {training.num_processes} "
            f"processes{f' x {len(training.hosts)} hosts' if training.hosts else ''}",
        ),
        ("negatives", _negatives(plan)),
        ("student", _model_name(config.student.model) + _adapters(config.student.lora)),
        ("discriminator", _model_name(config.discriminator_model)),
        *(("warning", sentence) for sentence in _concerns(plan)),
    ]
    return "\n".join(_row(name, visible(value)) for name, value in rows)


def _concerns(plan: RunPlan) -> list[str]:
    teacher = plan.context.config.teacher
    is_instructed = (
        plan.sampling is not None and teacher.api == "chat" and not teacher.structured_output
    )
    return concerns(plan.spec, plan.questions, is_instructed=is_instructed)


def _adapters(lora: LoraSection | None) -> str:
    if lora is None:
        return ""
    held = f" on weights in {lora.quantize}" if lora.quantize else ""
    return f", adapters of rank {lora.rank}{held}"


def describe_prompt(prompt: "Prompt") -> str:
    """Show a rendered prompt, each part under its role."""
    if isinstance(prompt, str):
        return visible(prompt)
    return "\n".join(f"[{message['role']}]\n{visible(message['content'])}" for message in prompt)


def _row(name: str, value: str) -> str:
    # A path is not wrapped, so that it can be copied.
    lines = textwrap.wrap(
        value, _WIDTH - _NAME_WIDTH, break_long_words=False, break_on_hyphens=False
    )
    indent = "\n" + " " * (_NAME_WIDTH + 2)
    return f"  {name:<{_NAME_WIDTH}}{indent.join(lines)}"


def _sampling_rows(plan: RunPlan) -> list[tuple[str, str]]:
    if plan.sampling is None:
        return [("rationales", f"{plan.num_imported:,} imported, nothing to sample")]
    config, sampling = plan.context.config, plan.sampling
    train = plan.questions.filter(pl.col("split") == "train")
    where = "a local vLLM server"
    if isinstance(config.teacher.endpoints, Path):
        where = f"the servers of {config.teacher.endpoints}"
    elif config.teacher.endpoints is not None:
        where = f"{len(config.teacher.endpoints)} running servers"
    return [
        (
            "samples",
            f"{sampling.num_wanted:,} wanted = {sampling.num_stored:,} stored + "
            f"{sampling.reused.height:,} reused + {sampling.num_missing:,} to sample",
        ),
        ("generation", sampling.fingerprint),
        ("sampling", f"{len(sampling.shards):,} shards on {where}"),
        ("estimate", describe_estimate(config, plan.spec, train, sampling)),
    ]


def _condense_rows(plan: RunPlan) -> list[tuple[str, str]]:
    """What is condensed, or that many stored rationales are too long for the student."""
    teacher, limit = plan.context.config.teacher, plan.context.config.student.max_target_tokens
    if teacher.condense is not None:
        who, num = teacher_name(teacher.rewriter.model), plan.num_imported
        if plan.sampling is not None:
            num = plan.sampling.num_wanted
        most = f"at most {num:,} requests and {num * teacher.max_new_tokens:,} sampled tokens"
        what = f"rationales of over {teacher.condense.max_tokens} tokens, by {who}; {most}"
        return [("condense", what)]
    store = plan.context.store
    lazy = open_folder(store, plan.rationales_folder, Rationales).scan().head(_MOST_MEASURED)
    texts = collect(lazy.select(taught(teacher.rationale)), str(store))["rationale"]
    share = share_too_long(texts, limit)
    if share is None or share <= SUGGEST_ABOVE:
        return []
    return [
        (
            "lengths",
            f"about {share:.0%} of the first {len(texts):,} stored rationales are longer than "
            f"student.max_target_tokens={limit} and will be left out; teacher.condense.max_tokens="
            f"{limit} has them rewritten",
        )
    ]


def _negatives(plan: RunPlan) -> str:
    negatives = plan.context.config.negatives
    parts = []
    if negatives.teacher_minority:
        parts.append("the teacher's outvoted rationales")
    if negatives.student:
        parts.append(
            f"one sample per question from the student {negatives.lag} rounds before "
            f"(temperature {negatives.sampling_temperature:g})"
        )
    return " and ".join(parts) or "none"


def _model_name(weights: object) -> str:
    match weights:
        case object(type="scratch", architecture=kind, hidden_size=width, num_layers=layers):
            return f"{kind} from scratch, width {width}, {layers} layers"
        case object(type="scratch", hidden_size=width, num_layers=layers):
            return f"t5 encoder from scratch, width {width}, {layers} layers"
        case object(type="folder", path=path):
            return str(path)
        case object(name=name):
            return str(name)
    return "?"
