"""The sections of the configuration that say what is learnt from what, and how it is measured.

Vote, negatives, loss, training and evaluation: the method's options, the paper's reading of each
the default.
`qcrd_core.config.run` puts them together with models, data and places.
"""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, WithJsonSchema, model_validator

from qcrd_core.config.base import (
    MAX_BATCH,
    MAX_COUNT,
    MAX_PROCESSES,
    MAX_SECONDS,
    MAX_TOKENS,
    Section,
)
from qcrd_core.runtime.hosts import read_hosts

_HOSTS_SCHEMA = {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]}
Infer = Literal["predict", "explain_then_predict", "vote_k"]
"""Kinds of inference; see `qcrd_core.student.inference`."""
NUM_VOTES = 5
"""Rationales per question that `evaluation.infer` vote_k samples: the teacher's default K."""


class VotingSection(Section):
    """Self-consistency: which rationales are positive."""

    later = frozenset({"weights"})

    tie: Literal["abstain", "first", "logprob", "parts"] = "abstain"
    """What a tie for the most votes gives: no majority; the answer seen first; the answer of the
    likeliest sample; or, for answers of kind labels or json, the labels or the values of fields
    that most samples have. Rationales that differ from an answer made of parts are undecided."""
    positives: Literal["majority", "gold", "majority_and_gold", "first_sample"] = "majority"
    """Which rationales are positive: those whose answer equals the majority, the gold answer, or
    both; or only the first of each question, whatever its answer."""
    weights: Literal["equal", "precision", "agreement"] = "equal"
    """What a vote counts if there are several teachers: all the same; the odds that an answer of
    its teacher is right, by the questions that have a gold answer; or the odds that it agrees with
    the unweighted majority."""


class NegativesSection(Section):
    """Where negative rationales come from."""

    teacher_minority: bool = True
    """Use the teacher's outvoted rationales."""
    student: bool = True
    """Sample rationales from an earlier round's student."""
    num_samples: int = Field(default=1, ge=1, le=100, examples=[3])
    """Rationales per question that the student writes for a round."""
    lag: int = Field(default=5, ge=1, le=1000, examples=[2])
    """j: round t uses the checkpoint of round t - j."""
    sampling_temperature: float = Field(default=1.5, gt=0, le=100)
    """Temperature of the student's samples."""
    max_new_tokens: int | None = Field(default=None, ge=1, le=MAX_TOKENS, examples=[128])
    """Length limit of a student's rationale, tokens. Null: `student.max_target_tokens`, which no
    rationale in training exceeds. What is cut before its answer is left out and counted."""
    verify: Literal["none", "drop", "promote"] = "none"
    """What happens to a student's rationale whose answer equals the label: it stays a negative, is
    left out, or becomes a positive. Questions without a label are not verified."""

    @model_validator(mode="after")
    def _verified_ones_are_sampled(self) -> Self:
        if self.verify != "none" and not self.student:
            msg = (
                f"negatives.verify applies only when negatives.student is true; it is {self.verify}"
            )
            raise ValueError(msg)
        return self


class LossSection(Section):
    """The loss L = a1 L_pred + a2 L_cl + a3 L_D (equations 3, 6, 7, 8 of the paper)."""

    expert: ClassVar = frozenset(
        {"softmin_temperature", "neg_loss", "neg_tokens", "beta_mutual_information"}
    )

    alpha_label: float = Field(default=0.5, ge=0, le=1e6)
    """a1, weight of the label's cross entropy."""
    alpha_contrastive: float = Field(default=0.5, ge=0, le=1e6)
    """a2, weight of the contrastive rationale loss."""
    beta: float = Field(default=0.2, ge=0, le=1e6)
    """Weight of the negative term."""
    delta: float = Field(default=3.0, gt=0, le=1e6)
    """Margin, nats: a negative has no effect once its cross entropy (pairwise: minus that of the
    positive) exceeds it."""
    quality_weights: bool = True
    """Weigh rationales by the discriminator's score s. False: s counts as 1 for positives and as 0
    for negatives, and no discriminator is trained."""
    pos_select: Literal["min", "max", "mean", "weighted", "sample", "softmin"] = "min"
    """Which positives count: the one with the smallest or largest cross entropy, or a random one
    (sample); or all of them, weighted equally (mean), by quality score (weighted), or by
    softmax(-CE / softmin_temperature)."""
    neg_select: Literal["max", "min", "mean", "weighted", "sample"] = "max"
    """Which negatives count, as in `pos_select`; weighted is by 1 - quality score."""
    softmin_temperature: float = Field(default=1.0, gt=0, le=1e6)
    """Temperature of softmin, nats. Near 0 softmin is the minimum; if large it is the mean."""
    neg_loss: Literal["hinge", "softplus", "pairwise"] = "hinge"
    """How a negative is pushed away: up to the margin (hinge); smoothly (softplus); or smoothly and
    by its distance from the positive (pairwise)."""
    neg_tokens: Literal["all", "after_divergence", "after_false_step"] = "all"
    """Which tokens of a negative count: all; those after the point where it leaves the positive
    that it follows longest; or those from the result of its first false equation on, and after the
    divergence if no equation is known to be false."""
    beta_mutual_information: float = Field(default=0.0, ge=0, le=1e6)
    """Weight of the mutual-information term between label and rationale (arXiv 2403.03348). 0
    leaves it out."""

    @property
    def reads_rationales(self) -> bool:
        """Whether any term of the loss depends on rationales."""
        return bool(self.alpha_contrastive or self.beta_mutual_information)

    @property
    def reads_quality(self) -> bool:
        """Whether any term of the loss depends on the discriminator's scores."""
        return self.quality_weights and self.alpha_contrastive > 0

    @model_validator(mode="after")
    def _mutual_information_of_one_rationale(self) -> Self:
        several = self.pos_select not in {"min", "max", "sample"}
        if self.beta_mutual_information and (several or self.neg_tokens != "all"):
            msg = (
                "loss.beta_mutual_information applies only when loss.pos_select takes one "
                "rationale (min, max, sample) and loss.neg_tokens is all; they are "
                f"{self.pos_select} and {self.neg_tokens}"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _pairs_of_whole_rationales(self) -> Self:
        if self.neg_loss == "pairwise" and self.neg_tokens != "all":
            msg = (
                "loss.neg_loss=pairwise needs loss.neg_tokens=all; it is "
                f"{self.neg_tokens}, and the end of a negative would be compared with a whole "
                "positive"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _softmin_alone_has_a_temperature(self) -> Self:
        if self.changed("softmin_temperature") and self.pos_select != "softmin":
            msg = (
                "loss.softmin_temperature applies only when loss.pos_select is softmin; it is "
                f"{self.pos_select}"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _weighted_by_something(self) -> Self:
        names = [n for n in ("pos_select", "neg_select") if getattr(self, n) == "weighted"]
        if names and not self.quality_weights:
            msg = (
                f"loss.{names[0]}=weighted needs loss.quality_weights; it is false. Without "
                "quality scores weighted would be the mean"
            )
            raise ValueError(msg)
        return self


class TrainingSection(Section):
    """Rounds, optimiser and DeepSpeed."""

    expert: ClassVar = frozenset(
        {
            "hosts",
            "host_timeout_seconds",
            "zero_stage",
            "cpu_offload",
            "gradient_checkpointing",
            "checkpoint_seconds",
        }
    )

    num_rounds: int = Field(default=40, ge=1, le=1000, examples=[10])
    """T, number of rounds."""
    steps_per_round: int | None = Field(default=None, ge=1, le=MAX_COUNT, examples=[250])
    """R, optimiser steps per round. Null: one epoch, at most 250."""
    learning_rate: float = Field(default=5e-5, gt=0, le=100)
    """Learning rate of AdamW, with linear decay to 0 over all rounds."""
    warmup_steps: int = Field(default=0, ge=0, le=MAX_COUNT)
    """Steps of linear warm-up."""
    global_batch_size: int = Field(default=64, ge=1, le=MAX_COUNT)
    """Questions per optimiser step."""
    micro_batch_size: int = Field(default=64, ge=1, le=MAX_BATCH)
    """Questions per device and forward pass."""
    num_processes: int = Field(default=1, ge=1, le=MAX_PROCESSES)
    """Training processes per host, one per GPU."""
    hosts: Annotated[tuple[str, ...], WithJsonSchema(_HOSTS_SCHEMA)] = Field(
        default=(), examples=[["node1", "node2"]]
    )
    """Names or addresses of the hosts that train together, this one first; or a hostfile; or slurm.
    The others run `qcrd join`. Empty: this host alone."""
    host_timeout_seconds: float = Field(default=600, ge=10, le=MAX_SECONDS)
    """How long ranks wait for each other: for the hosts to join, and for one that fell silent or
    writes a checkpoint. Then training ends."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of training. T5 overflows in float16, so it is not offered."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """What DeepSpeed shards over the processes: nothing, the optimiser, also gradients, also
    weights. With bfloat16, 0 acts as 1, which keeps the float32 weights."""
    cpu_offload: Literal["none", "optimizer", "optimizer_and_weights"] = "none"
    """What DeepSpeed keeps in host memory: the optimiser (zero_stage 1 or above), also the weights
    (zero_stage 3)."""
    gradient_checkpointing: bool = False
    """Keep only each layer's input and compute its activations again: less memory, more time. A
    causal student then reads a prompt again for each of its rationales."""
    checkpoint_seconds: float = Field(default=60, gt=0, le=MAX_SECONDS)
    """Time between two resumable checkpoints within a round, seconds."""

    @model_validator(mode="before")
    @classmethod
    def _hosts_of_a_file(cls, content: Any) -> Any:
        if isinstance(content, dict) and isinstance(content.get("hosts"), str):
            hosts = read_hosts(content["hosts"], content.get("num_processes", 1))
            return {**content, "hosts": hosts}
        return content

    @model_validator(mode="after")
    def _hosts_once(self) -> Self:
        twice = [host for host in self.hosts if self.hosts.count(host) > 1]
        if twice:
            msg = f"training.hosts must name each host once; got {twice[0]} twice"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _batches_divide(self) -> Self:
        if self.global_batch_size % (self.micro_batch_size * self.num_ranks):
            hosts = f" x {len(self.hosts)} hosts" if self.hosts else ""
            msg = (
                "training.global_batch_size must be a multiple of micro_batch_size x "
                f"num_processes; got {self.global_batch_size} and {self.micro_batch_size} x "
                f"{self.num_processes}{hosts}"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _offloads_what_is_sharded(self) -> Self:
        least = {"none": 0, "optimizer": 1, "optimizer_and_weights": 3}[self.cpu_offload]
        if self.zero_stage < least:
            msg = (
                f"training.zero_stage must be at least {least} for training.cpu_offload "
                f"{self.cpu_offload}; got {self.zero_stage}"
            )
            raise ValueError(msg)
        return self

    @property
    def num_ranks(self) -> int:
        """Training processes on all hosts."""
        return self.num_processes * max(1, len(self.hosts))

    @property
    def gradient_accumulation_steps(self) -> int:
        """Micro-steps an optimiser step."""
        return self.global_batch_size // (self.micro_batch_size * self.num_ranks)

    def steps_in_round(self, num_questions: int) -> int:
        """R, optimiser steps per round, on that many training questions."""
        epoch = -(-num_questions // self.global_batch_size)
        return self.steps_per_round or min(epoch, 250)


class EvaluationSection(Section):
    """How the student answers on validation and test."""

    expert: ClassVar = frozenset({"batch_size"})

    max_new_tokens: int = Field(default=64, ge=1, le=MAX_TOKENS)
    """Length limit of an answer, tokens. Answers are decoded greedily."""
    infer: Infer = "predict"
    """How the student answers: with the label; with the answer of a rationale that it writes first;
    or with the majority answer of five sampled rationales. If no rationale gives an answer, the
    label counts."""
    compare: tuple[Infer, ...] = Field(default=(), examples=[["explain_then_predict"]])
    """Other values of `infer` that the final student is also tested with, for comparison."""
    batch_size: int = Field(default=128, ge=1, le=MAX_BATCH)
    """Questions answered at the same time."""

    @model_validator(mode="after")
    def _compared_with_others(self) -> Self:
        if self.infer in self.compare or len(set(self.compare)) < len(self.compare):
            msg = (
                "evaluation.compare must name each kind of inference once, and not "
                f"evaluation.infer; got {list(self.compare)} beside {self.infer}"
            )
            raise ValueError(msg)
        return self

    def texts_per_question(self, infer: Infer) -> int:
        """Labels or rationales that a student writes for one question."""
        return NUM_VOTES if infer == "vote_k" else 1
