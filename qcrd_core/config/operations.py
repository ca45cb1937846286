"""The sections of the configuration that govern a student's use, not what it learns.

Promotion, budget and model card. None of them is part of a run's name: changing a rule or a price
trains nothing anew.
"""

from typing import Self

from pydantic import Field, model_validator

from qcrd_core.config.base import Section


class PromotionSection(Section):
    """When a new student takes the champion's place: all conditions must hold.

    Both have answered the test questions the champion was measured on; see
    `qcrd_core.registry.promotion`.
    """

    max_p_value: float = Field(default=0.05, gt=0, le=1)
    """Exact one-sided McNemar test: how likely so large a gain would be by chance, at most. 1 asks
    for no test."""
    min_gain: float = Field(default=0.0, ge=0, lt=1)
    """Least gain in test accuracy, as a share: 0.01 is one point. No gain is never enough."""
    guarded_slices: tuple[str, ...] = ()
    """Names in the column `template` of the test questions on which nothing may be lost."""
    slice_tolerance: float = Field(default=0.0, ge=0, lt=1)
    """Accuracy that a guarded slice may lose, as a share."""


class BudgetSection(Section):
    """What sampling the teacher may take. Counted a run: new questions make a new run.

    At the limit sampling stops; samples that are there, those in flight included, are kept.
    """

    prompt_price: float = Field(default=0.0, ge=0)
    """Price of a million prompt tokens, in any currency. A prompt counts once a sample, though a
    server may read and bill it once for all samples of a question."""
    sampled_price: float = Field(default=0.0, ge=0)
    """Price of a million sampled tokens, in the same currency."""
    gpu_tokens_per_second: float | None = Field(default=None, gt=0)
    """Tokens that one GPU of a teacher of one's own samples a second, all requests together, as an
    earlier run measured it. Makes GPU-hours of tokens."""
    gpu_hour_price: float = Field(default=0.0, ge=0)
    """Price of a GPU-hour of the teacher, in the same currency."""
    max_cost: float | None = Field(default=None, gt=0)
    """Limit in that currency."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Limit in tokens, prompts and samples together."""

    @model_validator(mode="after")
    def _cost_has_a_price(self) -> Self:
        if self.gpu_hour_price and self.gpu_tokens_per_second is None:
            msg = (
                f"budget.gpu_hour_price must come with budget.gpu_tokens_per_second; got "
                f"{self.gpu_hour_price:g} without a speed"
            )
            raise ValueError(msg)
        if self.max_cost is not None and not self.has_price:
            msg = (
                f"budget.max_cost must come with budget.prompt_price, budget.sampled_price or "
                f"budget.gpu_hour_price; got {self.max_cost:g} without a price"
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

    license: str | None = None
    """Licence of the student, as the hub writes it, for example `apache-2.0`."""
    teacher_license: str | None = None
    """Licence of the teacher; some forbid training other models on its output."""
    data_license: str | None = None
    """Licence of the questions."""
    intended_use: str | None = None
    """What the student is for, and what it is not for."""
    contact: str | None = None
    """Whom to ask."""
