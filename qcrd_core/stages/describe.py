"""Describes a plan, for `--dry-run` and for the start of a run."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from data_schemas import Rationales
from qcrd_core.config.models import LoraSection
from qcrd_core.config.run import RunConfig
from qcrd_core.data.concerns import concerns
from qcrd_core.report.text import teacher_name, teacher_names, visible
from qcrd_core.stages.plan import RunPlan, TeacherPlan
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
        *(
            row
            for name, each in zip(teacher_names(config.teachers), plan.teachers, strict=True)
            for row in _teacher_rows(plan, each, name)
        ),
        *_vote_rows(config),
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
    is_instructed = any(
        each.sampling is not None
        and each.config.teacher.api == "chat"
        and not each.config.teacher.structured_output
        for each in plan.teachers
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


def _teacher_rows(plan: RunPlan, each: TeacherPlan, name: str) -> list[tuple[str, str]]:
    teacher, sampling = each.config.teacher, each.sampling
    if sampling is None:
        return [
            ("teacher", name),
            ("rationales", f"{each.num_imported:,} imported, nothing to sample"),
        ]
    train = plan.split("train")
    where = "a local vLLM server"
    if isinstance(teacher.endpoints, Path):
        where = f"the servers of {teacher.endpoints}"
    elif teacher.endpoints is not None:
        where = f"{len(teacher.endpoints)} running servers"
    return [
        ("teacher", name),
        (
            "samples",
            f"{sampling.num_wanted:,} wanted = {sampling.num_stored:,} stored + "
            f"{sampling.reused.height:,} reused + {sampling.num_missing:,} to sample",
        ),
        ("generation", sampling.fingerprint),
        ("sampling", f"{len(sampling.shards):,} shards on {where}"),
        ("estimate", describe_estimate(each.config, plan.spec, train, sampling)),
    ]


def _vote_rows(config: RunConfig) -> list[tuple[str, str]]:
    """How several teachers vote; nothing for one."""
    if not config.teacher.others:
        return []
    num_samples, weights = sum(t.num_samples for t in config.teachers), config.voting.weights
    how = "each counts the same" if weights == "equal" else f"weighted by {weights}"
    return [("vote", f"over {num_samples} samples per question, {how}")]


def _condense_rows(plan: RunPlan) -> list[tuple[str, str]]:
    """What is condensed, or that many stored rationales are too long for the student."""
    teacher, limit = plan.context.config.teacher, plan.context.config.student.max_target_tokens
    if teacher.condense is not None:
        who = teacher_name(teacher.rewriter.model)
        num = sum(each.num_wanted for each in plan.teachers)
        most = f"at most {num:,} requests and {num * teacher.max_new_tokens:,} sampled tokens"
        what = f"rationales of over {teacher.condense.max_tokens} tokens, by {who}; {most}"
        return [("condense", what)]
    store, frames = plan.context.store, []
    for each in plan.teachers:
        lazy = open_folder(store, each.folder, Rationales).scan().head(_MOST_MEASURED)
        what = each.config.teacher.rationale
        frames.append(collect(lazy.select(taught(what)), str(store)))
    texts = pl.concat(frames)["rationale"]
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
