"""The sections of the configuration that say what is learnt from what, and how it is measured.

Vote, negatives, loss, training and evaluation: the method's options, the paper's reading of each
the default.
`qcrd_core.config.run` puts them together with models, data and places.
"""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from qcrd_core.config.base import Section
from qcrd_core.runtime.hosts import read_hosts


class VotingSection(Section):
    """Self-consistency: which rationales are positive."""

    tie: Literal["abstain", "first", "logprob"] = "abstain"
    """Equal most votes: no majority; the answer seen first; the answer with the likeliest
    sample."""
    positives: Literal["majority", "gold", "majority_and_gold", "first_sample"] = "majority"
    """A rationale is positive when its answer equals the majority, the gold answer, or both; or,
    whatever its answer, when it is the question's first: all others are then left out."""


class NegativesSection(Section):
    """Where negative rationales come from."""

    teacher_minority: bool = True
    """Use the teacher's outvoted rationales."""
    student: bool = True
    """Sample one rationale a question from an earlier round's student."""
    lag: int = Field(default=5, ge=1)
    """j: round t uses the checkpoint of round t - j."""
    lag_warmup: Literal["none", "nearest"] = "none"
    """Rounds before j: no student negatives, or those of the oldest checkpoint there is."""
    sampling_temperature: float = Field(default=1.5, gt=0)
    """Temperature of the student's samples."""
    max_new_tokens: int = Field(default=64, ge=1)
    """Longest student rationale, tokens."""
    verify: Literal["none", "drop", "promote"] = "none"
    """What becomes of a student's rationale whose answer is the label: it stays a negative, is left
    out, or becomes a positive. Questions without a label are not verified."""

    @model_validator(mode="after")
    def _verified_ones_are_sampled(self) -> Self:
        if self.verify != "none" and not self.student:
            msg = (
                f"negatives.verify must be none where negatives.student is false; got {self.verify}"
            )
            raise ValueError(msg)
        return self


class LossSection(Section):
    """Weights of L = a1 L_pred + a2 L_cl + a3 L_D (equations 3, 6, 7, 8 of the paper)."""

    alpha_label: float = Field(default=0.5, ge=0)
    """a1, weight of the label's cross entropy."""
    alpha_contrastive: float = Field(default=0.5, ge=0)
    """a2, weight of the contrastive rationale loss."""
    alpha_discriminator_decay: float = Field(default=0.9, gt=0, le=1)
    """a3 <- 0.9 a3 every round, as a factor on the discriminator's learning rate."""
    beta: float = Field(default=0.2, ge=0)
    """Weight of the negative term."""
    delta: float = Field(default=3.0, gt=0)
    """Margin, nats: a negative whose cross entropy (pairwise: less that of the positive) exceeds it
    is left alone."""
    quality_weights: bool = True
    """Weigh by the discriminator's s; if not, s counts as 1 for positives and 0 for negatives."""
    pos_select: Literal["min", "max", "mean", "weighted", "sample", "softmin"] = "min"
    """Which positives count: the one with the smallest or largest cross entropy or a random one;
    or all, equally, by quality score, or by softmax(-CE / softmin_temperature)."""
    neg_select: Literal["max", "min", "mean", "weighted", "sample"] = "max"
    """Which negatives count, likewise; weighted is by 1 - quality score."""
    softmin_temperature: float = Field(default=1.0, gt=0)
    """Nats; near 0 softmin is the minimum, large it is the mean."""
    neg_loss: Literal["hinge", "softplus", "pairwise"] = "hinge"
    """How a negative is pushed off: up to the margin; likewise but smoothly; smoothly, and by its
    distance from the positive."""
    sharpness: float = Field(default=1.0, gt=0)
    """b of softplus and pairwise, per nat; large, softplus is the hinge."""
    neg_tokens: Literal["all", "after_divergence"] = "all"
    """Tokens of a negative that count: all, or those from where it leaves the positive that it
    follows longest."""

    beta_mutual_information: float = Field(default=0.0, ge=0)
    """Weight of the MI term between label and rationale, of another paper; 0 leaves it out."""

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
                "loss.beta_mutual_information must be 0 unless loss.pos_select takes one rationale "
                "(min, max, sample) and loss.neg_tokens is all; got "
                f"{self.beta_mutual_information:g} with {self.pos_select} and {self.neg_tokens}"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _softmin_alone_has_a_temperature(self) -> Self:
        if self.changed("softmin_temperature") and self.pos_select != "softmin":
            msg = (
                "loss.softmin_temperature must be left alone unless loss.pos_select is softmin; "
                f"got {self.softmin_temperature:g} with {self.pos_select}"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _weighted_by_something(self) -> Self:
        names = [n for n in ("pos_select", "neg_select") if getattr(self, n) == "weighted"]
        if names and not self.quality_weights:
            msg = (
                f"loss.{names[0]} must be another than weighted where loss.quality_weights is "
                "false; got weighted, which would be the mean"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _hinge_has_no_sharpness(self) -> Self:
        if self.changed("sharpness") and self.neg_loss == "hinge":
            msg = (
                "loss.sharpness must be left alone unless loss.neg_loss is softplus or pairwise; "
                f"got {self.sharpness:g} with hinge"
            )
            raise ValueError(msg)
        return self


class TrainingSection(Section):
    """Rounds, optimiser and DeepSpeed."""

    num_rounds: int = Field(default=40, ge=1)
    """T, rounds."""
    steps_per_round: int | None = Field(default=None, ge=1)
    """R, optimiser steps a round. Null: one epoch, at most 250."""
    learning_rate: float = Field(default=5e-5, gt=0)
    """AdamW, linear decay to 0 over all rounds."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's decoupled weight decay."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps of linear warm-up."""
    gradient_clip: float = Field(default=1.0, gt=0)
    """Largest gradient norm."""
    global_batch_size: int = Field(default=64, ge=1)
    """Questions an optimiser step."""
    micro_batch_size: int = Field(default=64, ge=1)
    """Questions one device takes at once."""
    num_processes: int = Field(default=1, ge=1)
    """Training processes on each host, one a GPU."""
    hosts: tuple[str, ...] = ()
    """Names or addresses of the hosts that train together, this one first; or a hostfile; or slurm.
    The others run `qcrd join`. Empty: this host alone."""
    rendezvous_port: int = Field(default=29500, ge=1, le=65535)
    """Port of the first host at which the others come in."""
    host_timeout_seconds: float = Field(default=600, ge=10)
    """How long ranks wait for each other, for the hosts to come, and for one that fell silent or
    writes a checkpoint; then training ends."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """T5 overflows in float16, so it is not offered."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """What DeepSpeed shards over the processes: nothing, optimiser, gradients, weights. With
    bfloat16 0 is as 1, which has the place for its float32 weights."""
    cpu_offload: Literal["none", "optimizer", "optimizer_and_weights"] = "none"
    """What a shard keeps in host memory: from zero_stage 1 on the optimiser, with 3 the weights
    too."""
    gradient_checkpointing: bool = False
    """Keep a layer's input instead of all its activations and compute them again: less memory, more
    time. A causal student then reads a prompt anew for each of its rationales."""
    checkpoint_seconds: float = Field(default=60, gt=0)
    """Time between two resumable checkpoints within a round."""

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
                f"global_batch_size must be a multiple of micro_batch_size x num_processes; got "
                f"{self.global_batch_size} and {self.micro_batch_size} x "
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
        """R, optimiser steps a round, on that many training questions."""
        epoch = -(-num_questions // self.global_batch_size)
        return self.steps_per_round or min(epoch, 250)


class EvaluationSection(Section):
    """How the student answers on validation and test."""

    max_new_tokens: int = Field(default=64, ge=1)
    """Longest answer, tokens; greedy."""
    infer: Literal["predict", "explain_then_predict", "vote_k"] = "predict"
    """The label alone; the answer that a rationale comes to, or else the label; or the answer that
    most of num_votes sampled rationales come to, or else the label."""
    num_votes: int = Field(default=5, ge=2)
    """K of vote_k, rationales a question."""
    sampling_temperature: float = Field(default=0.7, gt=0)
    """Temperature of vote_k's rationales."""
    batch_size: int = Field(default=128, ge=1)
    """Questions answered at once."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Level of the intervals in the report."""

    @model_validator(mode="after")
    def _votes_are_counted(self) -> Self:
        changed = self.changed("num_votes", "sampling_temperature")
        if changed and self.infer != "vote_k":
            msg = (
                f"evaluation.{changed[0]} must be left alone unless evaluation.infer is vote_k; "
                f"got {getattr(self, changed[0]):g} with {self.infer}"
            )
            raise ValueError(msg)
        return self

    @property
    def texts_per_question(self) -> int:
        """Labels or rationales that a student writes for one question."""
        return self.num_votes if self.infer == "vote_k" else 1
