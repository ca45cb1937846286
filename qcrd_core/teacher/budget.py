"""Tokens and cost of sampling, counted while it runs and compared with the section `budget`.

    meter = Meter(config.budget, spent=tokens_of(rows))
    meter.add(700, 120)          after each completion, from any thread
    if meter.is_spent: ...       before each request

Limits: requests that are in flight when a limit is reached are still answered, paid and kept, so
the limit is exceeded by at most `teacher.concurrency` completions per server and sampler. The
tokens of the run's other samplers are counted when their parts are stored.
"""

import threading
from dataclasses import dataclass

import polars as pl

from qcrd_core.config.operations import BudgetSection


@dataclass(frozen=True)
class Tokens:
    """Prompt tokens and sampled tokens."""

    prompt: int = 0
    sampled: int = 0

    @property
    def total(self) -> int:
        """All tokens."""
        return self.prompt + self.sampled


def tokens_of(rationales: pl.DataFrame, run_id: str) -> Tokens:
    """Tokens that a run has sampled, by table `rationales`."""
    own = rationales.filter(pl.col("run_id") == run_id)
    # A sum of Int32 stays Int32 and wraps: ten million prompts of 214 tokens exceed it.
    counts = own.select(pl.col("num_prompt_tokens", "num_tokens").cast(pl.Int64).sum()).row(0)
    return Tokens(*counts)


class Meter:
    """Tokens and cost of one run. Safe to use from several threads."""

    def __init__(self, budget: BudgetSection, spent: Tokens) -> None:
        """Begin to count.

        Args:
            budget: Prices and limits.
            spent: Tokens of the run's earlier starts.
        """
        self._budget, self._spent = budget, spent
        self._lock = threading.Lock()

    def add(self, num_prompt_tokens: int, num_tokens: int) -> None:
        """Count one completion."""
        with self._lock:
            self._spent = Tokens(
                self._spent.prompt + num_prompt_tokens, self._spent.sampled + num_tokens
            )

    @property
    def spent(self) -> Tokens:
        """Tokens of the run so far."""
        return self._spent

    @property
    def cost(self) -> float:
        """Cost of the run so far, at the prices of the budget."""
        return self._budget.cost(self._spent.prompt, self._spent.sampled)

    @property
    def has_limit(self) -> bool:
        """Whether the budget has a limit."""
        return self._budget.max_tokens is not None or self._budget.max_cost is not None

    @property
    def is_spent(self) -> bool:
        """Whether a limit is reached."""
        return self.excess is not None

    @property
    def excess(self) -> str | None:
        """The limit that was reached and the tokens or cost so far; None if below all limits."""
        budget, total = self._budget, self._spent.total
        if budget.max_tokens is not None and total >= budget.max_tokens:
            return f"budget.max_tokens = {budget.max_tokens:,}; {total:,} tokens were used"
        if budget.max_cost is not None and self.cost >= budget.max_cost:
            return f"budget.max_cost = {budget.max_cost:g}; {self.cost:.4g} was spent"
        return None

    @property
    def note(self) -> str:
        """Tokens, cost and limits in a few words, for a progress bar."""
        budget = self._budget
        of_tokens = "" if budget.max_tokens is None else f" of {budget.max_tokens:,}"
        text = f"{self._spent.total:,}{of_tokens} tokens"
        if budget.has_price:
            of_cost = "" if budget.max_cost is None else f" of {budget.max_cost:g}"
            text += f", cost {self.cost:.4g}{of_cost}"
        return text
