"""Check that every prompt and its completion fit into the teacher's context."""

import asyncio
import logging
from collections.abc import Mapping

from qcrd_core.errors import DataError
from qcrd_core.teacher.job import SamplingJob
from qcrd_core.teacher.rendering import num_bytes
from qcrd_core.teacher.servers.client import Prompt, TeacherClient

logger = logging.getLogger(__name__)


def check_prompt_lengths(job: SamplingJob) -> int:
    """Reject a question that does not fit into the context, before anything is sampled.

    Counts prompts from the longest on, until the rest is short enough, assuming that no prompt has
    more than twice as many tokens per byte as the densest one counted so far.

    Args:
        job: Inputs of the shards; only questions with missing samples are checked.

    Returns:
        Prompts counted; 0 if the server reports no context length or counts no tokens.

    Raises:
        DataError: If a prompt and `max_new_tokens` exceed the context; names the question.
    """
    limit = job.pool.max_model_len
    if limit is None:
        logger.warning(
            "The teacher's servers report no context length; prompt lengths are not checked"
        )
        return 0
    wanted = sorted({key[0] for shard in job.plan.shards for key in shard.keys})
    prompts = {question_id: job.prompt(question_id) for question_id in wanted}
    return asyncio.run(_check_lengths(job, prompts, limit))


async def _check_lengths(job: SamplingJob, prompts: Mapping[str, Prompt], limit: int) -> int:
    budget = limit - job.config.teacher.max_new_tokens
    num_counted, densest = 0, 0.0
    async with TeacherClient(job.pool, job.config.teacher, job.spec.answer) as client:
        for question_id in sorted(prompts, key=lambda name: -num_bytes(prompts[name])):
            size = num_bytes(prompts[question_id])
            if num_counted and 2 * densest * size < budget:
                break
            num_tokens = await client.count_tokens(prompts[question_id])
            if num_tokens is None:
                logger.warning(
                    "The teacher's server cannot count tokens; prompt lengths are not checked"
                )
                return 0
            if num_tokens > budget:
                msg = (
                    f"A prompt and its completion must fit into the teacher's context of {limit} "
                    f"tokens; got {num_tokens} + {job.config.teacher.max_new_tokens} for question "
                    f"{question_id!r}. Shorten the question or the demonstrations, lower "
                    "teacher.max_new_tokens, or raise teacher.server.max_model_len."
                )
                raise DataError(msg)
            num_counted += 1
            densest = max(densest, num_tokens / size)
    return num_counted
