"""The sections of the configuration that govern a student's use, not what it learns.

Promotion, budget and model card. None of them is part of a run's name: a changed rule or price
leads to no new training.
"""

from typing import ClassVar, Self

from pydantic import Field, model_validator

from qcrd_core.config.base import MAX_COUNT, MAX_SEED, Section


class PromotionSection(Section):
    """When a new student takes the champion's place: all conditions must hold.

    Both have answered the test questions the champion was measured on; see
    `qcrd_core.registry.promotion`.
    """

    expert: ClassVar = frozenset({"guarded_slices", "slice_tolerance", "first_accuracy"})

    max_p_value: float = Field(default=0.05, gt=0, le=1)
    """Largest p of the exact one-sided McNemar test: how likely so large a gain is by chance. 1
    skips the test."""
    min_gain: float = Field(default=0.0, ge=0, lt=1)
    """Least gain in test accuracy, as a fraction: 0.01 is one point. The gain must always be above
    0."""
    guarded_slices: tuple[str, ...] = Field(default=(), examples=[["division"]])
    """Values of the column `template` of the test questions on which accuracy may not drop."""
    slice_tolerance: float = Field(default=0.0, ge=0, lt=1)
    """Accuracy that a guarded slice may still lose, as a fraction."""
    first_accuracy: float | None = Field(default=None, ge=0, le=1, examples=[0.6])
    """Test accuracy that makes a student the first champion. By default it must beat the most
    frequent right answer instead, by the same test as later students beat the champion."""


class BudgetSection(Section):
    """What sampling the teacher may cost, per run. New questions make a new run.

    At the limit sampling stops; samples that exist, including those in flight, are kept.
    """

    prompt_price: float = Field(default=0.0, ge=0, le=MAX_COUNT, examples=[0.15])
    """Price per million prompt tokens, in any currency. A prompt counts once per sample, though a
    server may read and bill it once for all samples of a question."""
    sampled_price: float = Field(default=0.0, ge=0, le=MAX_COUNT, examples=[0.6])
    """Price per million sampled tokens, in the same currency."""
    gpu_tokens_per_second: float | None = Field(default=None, gt=0, le=MAX_COUNT, examples=[2500])
    """Tokens per second and GPU that your own teacher samples, over all requests, as an earlier run
    measured them. Converts tokens into GPU-hours."""
    gpu_hour_price: float = Field(default=0.0, ge=0, le=MAX_COUNT, examples=[2.0])
    """Price per GPU-hour of the teacher, in the same currency."""
    max_cost: float | None = Field(default=None, gt=0, le=1e15, examples=[25.0])
    """Cost limit, in that currency."""
    max_tokens: int | None = Field(default=None, ge=1, le=MAX_SEED, examples=[5000000])
    """Token limit, prompts and samples together."""

    @model_validator(mode="after")
    def _cost_has_a_price(self) -> Self:
        if self.gpu_hour_price and self.gpu_tokens_per_second is None:
            msg = (
                "budget.gpu_hour_price needs budget.gpu_tokens_per_second, which converts tokens "
                "into GPU-hours; it is null"
            )
            raise ValueError(msg)
        if self.max_cost is not None and not self.has_price:
            msg = (
                "budget.max_cost needs a price: budget.prompt_price, budget.sampled_price or "
                "budget.gpu_hour_price; all are 0"
            )
            raise ValueError(msg)
        return self

    @property
    def has_price(self) -> bool:
        """Whether anything costs something."""
        return bool(self.prompt_price or self.sampled_price or self.gpu_hour_price)

    def gpu_hours(self, num_tokens: int) -> float | None:
        """GPU-hours of so many sampled tokens; None without a speed."""
        if self.gpu_tokens_per_second is None:
            return None
        return num_tokens / self.gpu_tokens_per_second / 3600

    def cost(self, num_prompt_tokens: int, num_tokens: int) -> float:
        """Cost of so many prompt tokens and sampled tokens."""
        tokens = (num_prompt_tokens * self.prompt_price + num_tokens * self.sampled_price) / 1e6
        return tokens + (self.gpu_hours(num_tokens) or 0.0) * self.gpu_hour_price


class CardSection(Section):
    """What a model card says beyond what qcrd measures. Null: "not stated"."""

    expert: ClassVar = frozenset(
        {"license", "teacher_license", "data_license", "intended_use", "contact"}
    )

    license: str | None = Field(default=None, examples=["apache-2.0"])
    """Licence of the student, as the hub writes it."""
    teacher_license: str | None = Field(default=None, examples=["apache-2.0"])
    """Licence of the teacher. Some licences forbid training other models on a model's output."""
    data_license: str | None = Field(default=None, examples=["cc-by-4.0"])
    """Licence of the questions."""
    intended_use: str | None = Field(
        default=None, examples=["Arithmetic word problems in English."]
    )
    """What the student is for, and what it is not for."""
    contact: str | None = Field(default=None, examples=["ml-team@example.com"])
    """Whom to ask about the student."""
