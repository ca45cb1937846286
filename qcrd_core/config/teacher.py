"""The section `teacher`: which large models write the rationales, and how they are asked.

Most runs have one teacher. Further ones stand in `teacher.others`, a list of sections like it, so
that one teacher stays the simple case: settings, overrides and code say `teacher`, and what samples
a teacher sees a configuration with that one alone (`RunConfig.per_teacher`).
"""

from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, JsonValue, model_validator

from qcrd_core.config.base import (
    MAX_BATCH,
    MAX_COUNT,
    MAX_PROCESSES,
    MAX_SEED,
    MAX_TEACHERS,
    MAX_TOKENS,
    THINK_TAGS,
    Section,
)
from qcrd_core.config.endpoints import Endpoints
from qcrd_core.config.extra_body import check_extra_body
from qcrd_core.config.models import ImportedModel, ServedModelOrText, TeacherModelOrText

NEW_IN_IDENTITY = (
    *("system_prompt", "stop", "top_k", "min_p", "extra_body", "think_tags"),
    "structured_output",
)
"""Settings of a teacher that generations and runs are named after only if they are set."""


class VllmServer(Section):
    """How the managed local vLLM server is started. Not used with `endpoints`."""

    expert: ClassVar = frozenset(
        {"max_model_len", "tensor_parallel_size", "data_parallel_size", "extra_args"}
    )

    max_model_len: int | None = Field(default=None, ge=64, le=16_777_216, examples=[4096])
    """Context length, tokens. Null takes the model's own."""
    tensor_parallel_size: int = Field(default=1, ge=1, le=MAX_PROCESSES, examples=[2])
    """GPUs that one copy of the model is spread over."""
    data_parallel_size: int | None = Field(default=None, ge=1, le=MAX_PROCESSES, examples=[4])
    """Model copies behind the one port. Null: as many as the GPUs hold; one on a machine without
    GPU."""
    extra_args: tuple[str, ...] = Field(default=(), examples=[["--enforce-eager"]])
    """Further arguments of vLLM's server, as on its command line. An argument that qcrd also sets
    takes the value given here."""


class CondenseSection(Section):
    """Long rationales are written again within a length limit, before the student learns them."""

    expert: ClassVar = frozenset({"model", "endpoints", "extra_body"})

    max_tokens: int = Field(ge=4, le=MAX_TOKENS, examples=[128])
    """Length limit of a rationale, in the student's tokens. A longer one is written again; the
    rewrite counts if it keeps its answer and fits, otherwise the rationale stays as it is."""
    model: ServedModelOrText | None = Field(default=None, examples=["Qwen/Qwen2.5-3B-Instruct"])
    """Another model that rewrites, named like `teacher.model`. Null: the teacher. Imported
    rationales need one."""
    endpoints: Endpoints | None = Field(default=None, examples=[["http://gpu2:8000/v1"]])
    """Running servers of `teacher.condense.model`, as in `teacher.endpoints`. Null starts and stops
    a local vLLM server for it, with the settings in `teacher.server`."""
    extra_body: dict[str, JsonValue] | None = Field(
        default=None, examples=[{"chat_template_kwargs": {"enable_thinking": False}}]
    )
    """Further keys of each request for a rewrite. Null: `teacher.extra_body` if the teacher
    rewrites, none for another model."""

    @model_validator(mode="after")
    def _another_model_is_whole(self) -> Self:
        if self.endpoints is not None and self.model is None:
            msg = (
                "teacher.condense.endpoints applies only when teacher.condense.model names another "
                "model; it is null, so the teacher's servers are asked"
            )
            raise ValueError(msg)
        check_extra_body("teacher.condense.extra_body", self.extra_body or {})
        return self


class OneTeacher(Section):
    """A large model and how it is sampled."""

    expert: ClassVar = frozenset(
        {
            *("seed", "shards_in_flight", "questions_per_shard", "reuse"),
            *("system_prompt", "stop", "top_k", "min_p", "extra_body", "structured_output"),
            *("think_tags", "max_cut_thoughts"),
        }
    )

    model: TeacherModelOrText = Field(examples=["Qwen/Qwen2.5-7B-Instruct"])
    """The teacher: the name of a hub model or, if it begins with `.`, `/` or `~`, a folder; other
    kinds of teachers are a section. Running servers must serve this very name."""
    endpoints: Endpoints | None = Field(default=None, examples=[["http://gpu1:8000/v1"]])
    """Running OpenAI-compatible servers: a list of URLs, or a YAML or JSON file with such a list,
    which may change while the run samples. Null starts and stops a local vLLM server."""
    server: VllmServer = VllmServer()
    """Settings of the local server."""
    api: Literal["chat", "completions"] = "chat"
    """Which API of the server is asked. With `chat` the server applies the model's chat template;
    with `completions` the prompt is one plain text."""
    num_samples: int = Field(default=5, ge=1, le=1000, examples=[8])
    """K, rationales per question."""
    sampling_temperature: float = Field(default=0.7, gt=0, le=100)
    """Temperature of the teacher's samples."""
    max_new_tokens: int = Field(default=256, ge=1, le=1_048_576)
    """Length limit of a completion, tokens."""
    rationale: Literal["answer", "reasoning", "both"] = "answer"
    """What of a teacher that thinks before it answers is taught: the explanation in its answer, its
    thought, or the thought followed by the explanation. If it wrote only one of them, that one."""
    system_prompt: str | None = Field(default=None, min_length=1, examples=["You are a teacher."])
    """Text of a system message before everything else. Needs `teacher.api=chat`."""
    stop: tuple[str, ...] | None = Field(default=None, examples=[[]])
    """Texts at which the server ends a completion. Null: `answer.stop` of the data set, at which
    completions are cut in any case. Set [] if the teacher writes one of them while it thinks."""
    top_k: int | None = Field(default=None, ge=1, le=MAX_COUNT, examples=[20])
    """Sample only from this many of the likeliest tokens. Null: from all."""
    min_p: float | None = Field(default=None, ge=0, le=1, examples=[0.05])
    """Sample only from tokens that are at least this many times as likely as the likeliest one.
    Null: from all."""
    extra_body: dict[str, JsonValue] = Field(
        default={}, examples=[{"chat_template_kwargs": {"enable_thinking": False}}]
    )
    """Further keys of each request, as the server knows them: for example `reasoning_effort`, or
    `chat_template_kwargs` to switch thinking off."""
    structured_output: bool = False
    """Have the server enforce the form of JSON answers: each completion is an object of `rationale`
    and `answer`, and the latter follows `answer.json_schema`. Needs `teacher.api=chat`. A server
    that does not know `response_format` refuses the requests."""
    think_tags: tuple[str, str] = Field(default=THINK_TAGS, examples=[["[THINK]", "[/THINK]"]])
    """Tags around a thought in a completion. With an empty first tag, the chat template opens the
    thought in the prompt, so every completion begins inside it."""
    max_cut_thoughts: float = Field(default=0.5, gt=0, le=1)
    """Share of samples with nothing behind their thought, mostly because it was cut, above which
    sampling stops. 1 never stops it."""
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    """Seed of the samples. It is separate from `run.seed`, so that runs of several seeds learn from
    the same rationales."""
    concurrency: int = Field(default=256, ge=1, le=MAX_BATCH)
    """Samples in flight per server, at most. Within it qcrd finds the load that each of several
    servers sustains."""
    shards_in_flight: int = Field(default=2, ge=1, le=MAX_BATCH)
    """Shards sampled at the same time per server, so that the server stays full between two."""
    questions_per_shard: int = Field(default=64, ge=1, le=MAX_BATCH)
    """Questions per Parquet part. A killed run asks at most so many per shard in flight again."""
    reuse: tuple[Path, ...] = Field(default=(), examples=[["quickstart/samples"]])
    """Folders of earlier samples. They are used only if their fingerprint equals this run's."""

    @model_validator(mode="after")
    def _request_is_whole(self) -> Self:
        needing_chat = self.changed("system_prompt", "structured_output")
        if needing_chat and self.api == "completions":
            msg = f"teacher.{needing_chat[0]} needs teacher.api=chat; it is completions"
            raise ValueError(msg)
        if self.structured_output and "response_format" in self.extra_body:
            msg = (
                "teacher.extra_body must not hold response_format, which "
                "teacher.structured_output writes; leave out one of them"
            )
            raise ValueError(msg)
        if not self.think_tags[1]:
            msg = f"teacher.think_tags must have a closing tag; got {list(self.think_tags)}"
            raise ValueError(msg)
        if self.stop is not None and not all(self.stop):
            msg = "teacher.stop must hold non-empty texts; got an empty one"
            raise ValueError(msg)
        check_extra_body("teacher.extra_body", self.extra_body)
        return self

    @property
    def is_imported(self) -> bool:
        """Whether its rationales were imported, so that nobody is asked."""
        return isinstance(self.model, ImportedModel)

    def added_to_identity(self) -> dict[str, Any]:
        """What reaches the model, or decides how it is read, and is not at its default.

        It is left out at the default, so that samples from before a setting existed are still used.
        """
        content = self.model_dump(mode="json")
        return {name: content[name] for name in self.changed(*NEW_IN_IDENTITY)}


class TeacherSection(OneTeacher):
    """The large model and how it is sampled; further ones in `others`."""

    expert: ClassVar = OneTeacher.expert | {"others"}
    later = frozenset({"others"})

    stop_when_settled: float | None = Field(default=None, gt=0, lt=1, examples=[0.05])
    """Draw the K samples of a question in waves, and no more when the chance that its majority
    still changes is below this bound. Null: always K. docs/operations.md has what it saves."""
    condense: CondenseSection | None = None
    """Rewrite rationales that are longer than a limit. Null: they stay as they are."""
    others: tuple[OneTeacher, ...] = Field(
        default=(),
        max_length=MAX_TEACHERS,
        examples=[[{"model": "Qwen/Qwen2.5-3B-Instruct", "num_samples": 3}]],
    )
    """Further teachers of the same questions: sections with the settings of `teacher`, except
    `stop_when_settled` and `condense`. What they leave out has its default, not the first teacher's
    value. All samples vote together, by `voting.weights`."""

    @model_validator(mode="after")
    def _somebody_condenses(self) -> Self:
        if self.is_imported and self.condense is not None and self.condense.model is None:
            msg = (
                "teacher.condense.model must name a model that rewrites imported rationales; it is "
                "null, and teacher.model is imported"
            )
            raise ValueError(msg)
        return self

    @property
    def rewriter(self) -> Self:
        """This teacher, or the model in `condense.model`, as it is asked for rewrites."""
        condense = self.condense
        changes: dict[str, Any] = {"num_samples": 1, "stop_when_settled": None}
        changes |= {"reuse": (), "others": ()}
        if condense is not None and condense.model is not None:
            # What is said to one model, or how it marks a thought, says nothing of another.
            fields = type(self).model_fields
            changes |= {name: fields[name].default for name in NEW_IN_IDENTITY}
            changes |= {"model": condense.model, "endpoints": condense.endpoints}
        if condense is not None and condense.extra_body is not None:
            changes["extra_body"] = condense.extra_body
        changes["structured_output"] = False  # a rewrite is a text
        return self.model_copy(update=changes)
