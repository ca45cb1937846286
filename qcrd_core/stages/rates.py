"""How fast the teachers of a run were sampled, for the report and for `qcrd plan`."""

import logging
from datetime import datetime

import polars as pl

from qcrd_core.report.text import teacher_names
from qcrd_core.run.context import RunContext
from qcrd_core.teacher.job import Sampled
from qcrd_core.teacher.plan import read_samples
from qcrd_core.teacher.servers.launch import num_engines

logger = logging.getLogger(__name__)


class Rates:
    """The rates of one start of a run: stages `sampling` and `servers` of table `metrics`."""

    def __init__(self, context: RunContext) -> None:
        """Begin without any.

        Args:
            context: The run with all its teachers.
        """
        self._context = context
        self._numbers: dict[str, float] = {}
        self._servers: dict[str, float] = {}

    def name_of(self, context: RunContext) -> str:
        """What a log calls the one teacher of a context; by its name if the run has several."""
        config = self._context.config
        if not config.teacher.others:
            return "the teacher"
        place = config.per_teacher.index(context.config)
        return teacher_names(config.teachers)[place]

    def add(
        self, context: RunContext, folder: str, sampled: Sampled, began: datetime, seconds: float
    ) -> None:
        """Add the rates of a teacher, and store all so far.

        Args:
            context: The run with this teacher alone.
            folder: Folder of its samples.
            sampled: What was sampled.
            began: When, UTC.
            seconds: How long it took.
        """
        teacher, servers = context.config.teacher, sampled.servers
        # The protocol does not report GPUs, so each server of `endpoints` counts as one.
        num_gpus = sum(server.num_samples > 0 for server in servers)
        if teacher.endpoints is None:
            num_gpus = num_engines(teacher.server) * teacher.server.tensor_parallel_size
        for name, value in {**_drawn(context, folder, sampled, began), "seconds": seconds}.items():
            self._numbers[name] = self._numbers.get(name, 0) + value
        # Teachers are asked one after the other, so two need as many as the larger one.
        self._numbers["num_gpus"] = max(self._numbers.get("num_gpus", 0), num_gpus)
        self._context.write_metrics("sampling", -1, self._numbers)
        has_several = bool(self._context.config.teacher.others)
        of_whom = f" ({self.name_of(context)})" if has_several else ""
        for server in servers:
            name, speed = f"{server.url}{of_whom}", server.num_tokens / seconds
            self._servers[f"{name} tokens_per_second"] = speed
            self._servers[f"{name} concurrency"] = server.concurrency
            self._servers[f"{name} failures"] = server.num_failures
            self._servers[f"{name} drains"] = server.num_drains
            logger.info(
                "%s | %d samples | %.0f tok/s | concurrency %d | failures %d | drained %d times",
                *(name, server.num_samples, speed),
                *(server.concurrency, server.num_failures, server.num_drains),
            )
        self._context.write_metrics("servers", -1, self._servers)


def _drawn(context: RunContext, folder: str, sampled: Sampled, began: datetime) -> dict[str, int]:
    """Samples and tokens that the teacher's servers returned since `began`."""
    names = ("num_prompt_tokens", "num_tokens")
    if sampled.num_elsewhere and context.config.teacher.endpoints is not None:
        # Other samplers used the same servers, so their samples count for the servers' speed too.
        # Without `endpoints`, each sampler has its own engine.
        rows = read_samples(
            context.store,
            folder,
            questions=context.read_questions("train"),
            num_samples=context.config.teacher.num_samples,
            columns=("run_id", "created_at", *names),
        )
        rows = rows.filter(run_id=context.paths.run_id).filter(pl.col("created_at") >= began)
        sums = rows.select(pl.col(names).cast(pl.Int64).sum()).row(0)
        return {"num_samples": rows.height, **dict(zip(names, sums, strict=True))}
    return {
        "num_samples": sum(result.num_rows for result in sampled.shards),
        **{name: sum(getattr(result, name) for result in sampled.shards) for name in names},
    }
