"""What sampling takes, counted live against the section `budget`.

    meter = Meter(config.budget, spent=tokens_of(rows))
    meter.add(700, 120)          after each completion, from any thread
    if meter.is_spent: ...       before each request

Limits: requests in flight at the limit are answered, paid and kept, so it is passed by what they
take: at most `teacher.concurrency` completions a server and sampler. What other samplers of the run
took is known when their parts are stored.
"""

import threading
from dataclasses import dataclass

import polars as pl

from qcrd_core.config.operations import BudgetSection


@dataclass(frozen=True)
class Tokens:
    """A number of tokens of either kind."""

    prompt: int = 0
    sampled: int = 0

    @property
    def total(self) -> int:
        """Both together."""
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
            spent: What the run took before, in earlier starts.
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
        """What the run took so far."""
        return self._spent

    @property
    def cost(self) -> float:
        """Its cost at the prices of the budget."""
        return self._budget.cost(self._spent.prompt, self._spent.sampled)

    @property
    def has_limit(self) -> bool:
        """Whether there is anything to stay within."""
        return self._budget.max_tokens is not None or self._budget.max_cost is not None

    @property
    def is_spent(self) -> bool:
        """Whether a limit is reached."""
        return self.excess is not None

    @property
    def excess(self) -> str | None:
        """The limit that is reached, and what was taken; None while there is room."""
        budget, total = self._budget, self._spent.total
        if budget.max_tokens is not None and total >= budget.max_tokens:
            return f"budget.max_tokens = {budget.max_tokens:,}; {total:,} tokens are sampled"
        if budget.max_cost is not None and self.cost >= budget.max_cost:
            return f"budget.max_cost = {budget.max_cost:g}; {self.cost:.4g} is spent"
        return None

    @property
    def note(self) -> str:
        """The count in a few words, for a progress bar; with a limit also that."""
        budget = self._budget
        of_tokens = "" if budget.max_tokens is None else f" of {budget.max_tokens:,}"
        text = f"{self._spent.total:,}{of_tokens} tokens"
        if budget.has_price:
            of_cost = "" if budget.max_cost is None else f" of {budget.max_cost:g}"
            text += f", cost {self.cost:.4g}{of_cost}"
        return text
