"""Rows and parts of table `rationales`, made from the teacher's answers."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from data_schemas import Rationales
from qcrd_core.config.base import THINK_TAGS
from qcrd_core.data.completions import read_completion
from qcrd_core.data.thoughts import Tags, opens_in_prompt
from qcrd_core.data.verifier import log_failures
from qcrd_core.errors import SamplingError
from qcrd_core.store.store import part_name
from qcrd_core.teacher.job import SamplingJob, ShardResult
from qcrd_core.teacher.plan import SampleKey, Shard
from qcrd_core.teacher.servers.choices import Completion, Refusal
from qcrd_core.teacher.shard_claims import ShardClaims

logger = logging.getLogger(__name__)

_CUT = frozenset({"length", "content_filter"})
"""Finish reasons of a completion that is not whole."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """The teacher's answer for one sample."""

    seed: int
    outcome: Completion | Refusal
    created_at: datetime


def make_row(
    job: SamplingJob, key: SampleKey, drawn: Drawn, tags: Tags = THINK_TAGS
) -> dict[str, Any]:
    """Make a row of table `rationales` from the teacher's answer; `tags` enclose a thought."""
    question_id, sample_idx, prompt_hash = key
    outcome = drawn.outcome
    row: dict[str, Any] = {
        "question_id": question_id,
        "sample_idx": sample_idx,
        "source": "teacher",
        "round": None,
        "model": job.prepared.served_name,
        "model_revision": job.prepared.revision,
        "generation": job.plan.fingerprint,
        "prompt_hash": prompt_hash,
        "seed": drawn.seed,
        "created_at": drawn.created_at,
        "run_id": job.run_id,
    }
    if isinstance(outcome, Refusal):
        return row | {"status": "failed", "error": outcome.error}
    question = job.by_id[question_id]
    read = read_completion(
        outcome.text,
        job.spec.answer,
        question["choices"],
        question=question["question"],
        reasoning=outcome.reasoning,
        is_cut=outcome.finish_reason in _CUT,
        is_structured=job.config.teacher.structured_output,
        tags=tags,
    )
    return row | {
        **read,
        "finish_reason": outcome.finish_reason,
        "num_prompt_tokens": outcome.num_prompt_tokens,
        "num_tokens": outcome.num_tokens,
        "cumulative_logprob": outcome.cumulative_logprob,
    }


def write_part(
    job: SamplingJob,
    shard: Shard,
    found: Mapping[SampleKey, Drawn],
    *,
    claims: ShardClaims,
    start: float,
) -> ShardResult | None:
    """Write a shard's samples as a part.

    Args:
        job: Inputs of the shards.
        shard: The shard.
        found: Its samples; fewer than its keys if the budget cut the shard.
        claims: Knows which parts other samplers have stored.
        start: When the shard was begun, in seconds of the monotonic clock.

    Returns:
        Its counts; None if another sampler was first.

    Raises:
        SamplingError: If the teacher refused every request of a shard with several questions.
        StoreError: If the store cannot write the part.
    """
    # All rows at once: making each row when its answer arrives takes four times as long.
    drawn = {key: found[key] for key in shard.keys if key in found}
    tags = _tags(job, drawn)
    rows = [make_row(job, key, each, tags(each)) for key, each in drawn.items()]
    _refuse_total_failure(rows)
    log_failures(row.get("error") for row in rows if row["status"] != "failed")
    frame = pl.DataFrame(rows, schema=Rationales.create_empty().schema)
    name = _part(shard, frame)
    path = f"{job.plan.folder}/{name}"
    if rows:
        if not claims.may_store(shard, name):
            return None
        job.store.write_table(path, frame, Rationales)
    result = ShardResult(
        path=path,
        num_rows=frame.height,
        num_ok=frame.filter(pl.col("status") == "ok").height,
        num_no_answer=frame.filter(pl.col("status") == "no_answer").height,
        num_failed=frame.filter(pl.col("status") == "failed").height,
        num_thought_only=frame.filter(pl.col("status") == "thought_only").height,
        num_tokens=int(frame["num_tokens"].sum()),
        num_prompt_tokens=int(frame["num_prompt_tokens"].sum()),
        seconds=time.monotonic() - start,
    )
    _log(result)
    return result


def _tags(job: SamplingJob, drawn: Mapping[SampleKey, Drawn]) -> Callable[[Drawn], Tags]:
    """The tags of a thought in each sample.

    If the chat template opens the thought in the prompt, a completion that was cut within it has no
    tag at all. What gives it away is another completion, which closes what it never opened.
    """
    tags = job.config.teacher.think_tags
    texts = [each.outcome.text for each in drawn.values() if isinstance(each.outcome, Completion)]
    if not any(opens_in_prompt(text, tags) for text in texts):
        return lambda _: tags
    cut = ("", tags[1])
    return lambda each: cut if getattr(each.outcome, "finish_reason", None) == "length" else tags


def _part(shard: Shard, frame: pl.DataFrame) -> str:
    if frame.height == len(shard.keys):
        return shard.part
    return part_name(frame.select("question_id", "sample_idx", "prompt_hash"))


def _log(result: ShardResult) -> None:
    logger.info(
        "Sampled %d | ok %d | no answer %d | failed %d | only a thought %d | %.0f tok/s | %s",
        result.num_rows,
        result.num_ok,
        result.num_no_answer,
        result.num_failed,
        result.num_thought_only,
        result.num_tokens / max(result.seconds, 1e-9),
        result.path,
    )


def _refuse_total_failure(rows: list[dict[str, Any]]) -> None:
    has_several = len({row["question_id"] for row in rows}) > 1
    if has_several and all(row["status"] == "failed" for row in rows):
        msg = (
            f"The teacher refused all {len(rows)} requests of a shard, the first with: "
            f"{rows[0]['error']}. Nothing of this shard was stored, and finished shards are kept. "
            "Correct the teacher's settings and run again."
        )
        raise SamplingError(msg)
