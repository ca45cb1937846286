"""The discriminator's job per round: learn, be measured on held-out questions, score everything.

Reads: candidate rationales, the newest discriminator of an earlier round.
Writes: the round's discriminator folder, table `metrics`, and finally table `scores`. If `scores`
exists, the round has been scored.

Source: arXiv 2405.13014, section on the discriminator: at most 500 steps before round 0 on teacher
rationales and corrupted positives, then updates on fresh student samples. Deviation: by default
binary cross entropy on balanced batches instead of equation 2 (`discriminator.loss`).
"""

import shutil
from collections.abc import Sequence
from typing import Any

import polars as pl
import torch
from torch import Tensor

from qcrd_core.config.run import RunConfig
from qcrd_core.discriminator.jobs import ScoreRationales
from qcrd_core.discriminator.model import Discriminator, make_discriminator
from qcrd_core.discriminator.pairs import BATCH_SIZE, Pairs, PairSource
from qcrd_core.discriminator.scores import write_scores
from qcrd_core.evaluation import auc, expected_calibration_error
from qcrd_core.ids import derive_seed
from qcrd_core.run.context import RunContext
from qcrd_core.runtime.processes import Emit
from qcrd_core.student.tokenizer import encode_texts, load_tokenizer, pad_rows
from qcrd_core.training.losses import quality_bce, quality_infonce, quality_ratio

# The paper's a3 <- 0.9 a3 per round, as a factor on the learning rate: under Adam a factor on the
# loss itself changes next to nothing.
_RATE_DECAY = 0.9
HELD_OUT_SHARE = 0.1
"""Share of questions on which the discriminator is never trained, so that it can be measured."""

_SCORE_BATCH = 128


def score_rationales(job: ScoreRationales, emit: Emit) -> dict[str, Any]:
    """Train the discriminator and score the candidates of one round.

    Args:
        job: The run, the round and its candidates.
        emit: Receives `{"advance": n}` for n texts trained on or scored.

    Returns:
        `{"num_scored": int, "auc_polarity": float | None, "num_cut": int}`; `num_cut` counts texts
        cut to `discriminator.max_tokens`.

    Raises:
        ConfigError: If the encoder or tokenizer cannot be loaded.
    """
    context, round_ = job.context, job.round
    candidates = pl.read_parquet(job.candidates)
    texts = _Texts(load_tokenizer(job.tokenizer), context.config)
    discriminator, learned = _current(context, round_, texts.tokenizer)
    discriminator.to(texts.device)
    rate, num_steps = _schedule(context, round_, is_new=learned is None)
    held_out = pl.col("question_id").map_elements(
        lambda question_id: is_held_out(question_id, context.config.run.seed),
        return_dtype=pl.Boolean,
    )
    loss = None
    if num_steps:
        seed = derive_seed(context.config.run.seed, "discriminator", round_)
        loss = _learn(
            discriminator, texts, candidates.filter(~held_out), (num_steps, rate, seed), emit
        )
        _publish(context, round_, discriminator)
    scores, num_cut = _score(discriminator, texts, candidates, emit)
    scored = candidates.with_columns(pl.Series("quality_score", scores, pl.Float64))
    numbers = {"loss": loss, "learning_rate": rate, **measure(scored.filter(held_out))}
    _write_metrics(context, round_, numbers, num_cut)
    write_scores(context, round_, scored)
    return {
        "num_scored": len(scores),
        "auc_polarity": numbers["auc_polarity"],
        "num_cut": num_cut,
    }


def is_held_out(question_id: str, seed: int) -> bool:
    """Whether the discriminator is measured, not trained, on a question."""
    # By question, so that no rationale of a held-out one is learned, and the same in every round.
    return derive_seed(seed, "held out", question_id) % 1000 < 1000 * HELD_OUT_SHARE


def measure(scored: pl.DataFrame) -> dict[str, float | None]:
    """Measure how well scores separate positives from negatives, and correct from wrong.

    Args:
        scored: quality_score, polarity, is_correct (nullable) of held-out questions.

    Returns:
        auc_polarity, auc_correct and ece (of is_correct); None if one class is absent.
    """
    # Not every question has a gold answer; polarity comes from the vote and is always known.
    known = scored.drop_nulls("is_correct")
    scores, correct = known["quality_score"].to_list(), known["is_correct"].to_list()
    positive = (scored["polarity"] == "positive").to_list()
    return {
        "auc_polarity": auc(scored["quality_score"].to_list(), positive),
        "auc_correct": auc(scores, correct),
        "ece": expected_calibration_error(scores, correct) if scores else None,
    }


class _Texts:
    """Turns `question, rationale` into logits, and counts the texts that it cuts."""

    def __init__(self, tokenizer: Any, config: RunConfig) -> None:
        self.tokenizer, self.config = tokenizer, config.discriminator
        self.is_bfloat16 = config.training.precision == "bfloat16"
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.num_cut = 0

    def logits(self, discriminator: Discriminator, pairs: Sequence[tuple[str, str]]) -> Tensor:
        """Logits of `(question, rationale)` pairs, [S], float32."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.is_bfloat16):
            logits: Tensor = discriminator(*self._batch(pairs))  # [S]
        # Losses and scores are computed with more digits than bfloat16 has.
        return logits.float()

    def _batch(self, pairs: Sequence[tuple[str, str]]) -> tuple[Tensor, Tensor]:
        rows = encode_texts(self.tokenizer, [f"{q}, {r}" for q, r in pairs], end=True)
        self.num_cut += sum(len(row) > self.config.max_tokens for row in rows)
        rows = [row[: self.config.max_tokens] for row in rows]
        ids, mask = pad_rows(rows, self.tokenizer.pad_token_id)  # [S, T] both
        return ids.to(self.device), mask.to(self.device)


def _current(context: RunContext, round_: int, tokenizer: Any) -> tuple[Discriminator, int | None]:
    for earlier in range(round_ - 1, -1, -1):
        rel = context.paths.discriminator(earlier)
        if context.store.is_published(rel):
            return Discriminator.load(context.store.fetch_folder(rel)), earlier
    config = context.config
    return make_discriminator(config.discriminator_model, tokenizer, config.run.seed), None


def _schedule(context: RunContext, round_: int, *, is_new: bool) -> tuple[float, int]:
    config = context.config.discriminator
    rate = config.learning_rate * _RATE_DECAY**round_
    if is_new:
        return rate, config.pretrain_steps
    return rate, config.update_steps


def _learn(
    discriminator: Discriminator,
    texts: _Texts,
    rows: pl.DataFrame,
    schedule: tuple[int, float, int],
    emit: Emit,
) -> float | None:
    num_steps, rate, seed = schedule
    tokenizer = texts.tokenizer
    # T5's tokenizer has no mask token, and a byte-level one often neither of the two.
    mask = tokenizer.mask_token or tokenizer.unk_token or "_"
    source = PairSource(rows, texts.config, mask, seed)
    if source.is_empty:
        return None
    torch.manual_seed(seed)
    optimiser = torch.optim.AdamW(discriminator.parameters(), lr=rate)
    discriminator.train()
    total, num_texts = 0.0, BATCH_SIZE
    for _ in range(num_steps):
        pairs = source.draw()
        # [S], positives first.
        logits = texts.logits(discriminator, [*pairs.positives, *pairs.negatives])
        loss = _loss(texts.config.loss, logits, pairs)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(discriminator.parameters(), 1.0)
        optimiser.step()
        total += loss.item()
        emit({"advance": num_texts, "note": f"loss {loss.item():.3f}"})
    return total / num_steps


def _loss(name: str, logits: Tensor, pairs: Pairs) -> Tensor:
    is_positive = torch.arange(len(logits), device=logits.device) < len(pairs.positives)  # [S]
    if name == "bce":
        return quality_bce(logits, is_positive)
    texts = [question for question, _ in (*pairs.positives, *pairs.negatives)]
    numbers = {text: number for number, text in enumerate(texts)}
    question = torch.tensor([numbers[text] for text in texts], device=logits.device)  # [S]
    compute = quality_ratio if name == "ratio" else quality_infonce
    return compute(logits, is_positive, question)


@torch.no_grad()
def _score(
    discriminator: Discriminator, texts: _Texts, candidates: pl.DataFrame, emit: Emit
) -> tuple[list[float], int]:
    discriminator.eval()
    texts.num_cut = 0
    pairs = candidates.select("question", "rationale").rows()
    # Texts of similar length together, so that little padding is computed.
    order = sorted(range(len(pairs)), key=lambda row: len(pairs[row][0]) + len(pairs[row][1]))
    scores = [0.0] * len(pairs)
    for first in range(0, len(order), _SCORE_BATCH):
        rows = order[first : first + _SCORE_BATCH]
        # Equation 1, [S]. In float32 the sigmoid of a logit above 17 would be exactly 1.
        values = torch.sigmoid(texts.logits(discriminator, [pairs[row] for row in rows]).double())
        for row, value in zip(rows, values.tolist(), strict=True):
            scores[row] = value
        emit({"advance": len(rows)})
    return scores, texts.num_cut


def _publish(context: RunContext, round_: int, discriminator: Discriminator) -> None:
    rel = context.paths.discriminator(round_)
    target = context.store.local(rel)
    temporary = target.with_name(f"_tmp-{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    discriminator.save(temporary)
    context.store.publish_folder(temporary, rel)


def _write_metrics(
    context: RunContext, round_: int, numbers: dict[str, float | None], num_cut: int
) -> None:
    context.write_metrics("data", round_, {"num_judged_texts_cut": num_cut}, part="judged")
    context.write_metrics("discriminator", round_, numbers)
