"""The discriminator's job per round: learn, score everything, be measured on unseen questions.

Reads: candidate rationales, the newest discriminators of an earlier round.
Writes: the round's discriminator folder, table `metrics`, and finally table `scores`. If `scores`
exists, the round has been scored.

Source: arXiv 2405.13014, section on the discriminator: at most 500 steps before round 0 on teacher
rationales and corrupted positives, then updates on fresh student samples. Two deviations by
default: binary cross entropy on balanced batches instead of equation 2 (`discriminator.loss`); and
cross-fitting (`discriminator.fit`), because a discriminator that scores the rows it was trained on
says mostly which class they had.
"""

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
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
"""Share of questions on which the paper's one discriminator is not trained, to be measured."""

_SCORE_BATCH = 128

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Fold:
    """What one discriminator learns from and what it scores."""

    learnt: pl.DataFrame
    scored: pl.DataFrame
    """With columns `row`, its place among the candidates, and `is_measured`."""
    seed: int
    """Of its draws."""


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
    folds = _folds(context, round_, candidates)
    discriminators, is_new = _current(context, round_, texts.tokenizer, len(folds))
    rate, num_steps = _schedule(context, round_, is_new=is_new)
    losses = []
    for discriminator, fold in zip(discriminators, folds, strict=True):
        discriminator.to(texts.device)
        if num_steps:
            schedule = (num_steps, rate, fold.seed)
            losses.append(_learn(discriminator, texts, fold.learnt, schedule, emit))
    if num_steps:
        _publish(context, round_, discriminators)
    texts.num_cut = 0  # of training, where a text may be cut many times
    parts = [
        _score(discriminator, texts, fold, emit)
        for discriminator, fold in zip(discriminators, folds, strict=True)
    ]
    scored = pl.concat(parts).sort("row").drop("row")
    known = [loss for loss in losses if loss is not None]
    numbers = {
        "loss": sum(known) / len(known) if known else None,
        "learning_rate": rate,
        **measure(scored.filter("is_measured")),
    }
    _write_metrics(context, round_, numbers, texts.num_cut)
    write_scores(context, round_, scored)
    return {
        "num_scored": scored.height,
        "auc_polarity": numbers["auc_polarity"],
        "num_cut": texts.num_cut,
    }


def is_held_out(question_id: str, seed: int) -> bool:
    """Whether the paper's one discriminator is measured, not trained, on a question."""
    # By question, so that no rationale of a held-out one is learned, and the same in every round.
    return derive_seed(seed, "held out", question_id) % 1000 < 1000 * HELD_OUT_SHARE


def fold_of(question_id: str, seed: int) -> int:
    """Which of the two cross-fitted discriminators scores a question: 0 or 1, in every round."""
    return derive_seed(seed, "fold", question_id) % 2


def _folds(context: RunContext, round_: int, candidates: pl.DataFrame) -> list[_Fold]:
    """Share the candidates among the discriminators: two, or the paper's one."""
    seed = context.config.run.seed
    rows, ids = candidates.with_row_index("row"), candidates["question_id"].to_list()
    if context.config.discriminator.fit == "paper":
        held_out = pl.Series([is_held_out(name, seed) for name in ids], dtype=pl.Boolean)
        learnt = rows.filter(~held_out)
        draws = derive_seed(seed, "discriminator", round_)
        return [_Fold(learnt, rows.with_columns(is_measured=held_out), draws)]
    number = pl.Series([fold_of(name, seed) for name in ids], dtype=pl.Int8)
    halves = [rows.filter(number == half) for half in (0, 1)]
    is_split = all("positive" in half["polarity"].to_list() for half in halves)
    if not is_split:
        logger.warning(
            "Only one half of the questions has a positive rationale, so the discriminators of "
            "round %d are trained on all questions and their scores are not held out.",
            round_,
        )
    return [
        _Fold(
            learnt=halves[1 - half] if is_split else rows,
            scored=halves[half].with_columns(is_measured=is_split),
            seed=derive_seed(seed, "discriminator", round_, half),
        )
        for half in (0, 1)
    ]


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


def _current(
    context: RunContext, round_: int, tokenizer: Any, count: int
) -> tuple[list[Discriminator], bool]:
    """The newest discriminators, and whether they are untrained."""
    for earlier in range(round_ - 1, -1, -1):
        rel = context.paths.discriminator(earlier)
        if context.store.is_published(rel):
            folder = context.store.fetch_folder(rel)
            return [Discriminator.load(at) for at in _places(folder, count)], False
    config = context.config
    model, seed = config.discriminator_model, config.run.seed
    return [make_discriminator(model, tokenizer, seed) for _ in range(count)], True


def _places(folder: Path, count: int) -> list[Path]:
    """Folders of `count` discriminators inside a round's folder."""
    return [folder] if count == 1 else [folder / f"half-{half}" for half in range(count)]


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
def _score(discriminator: Discriminator, texts: _Texts, fold: _Fold, emit: Emit) -> pl.DataFrame:
    """The fold's rows with their quality_score."""
    discriminator.eval()
    pairs = fold.scored.select("question", "rationale").rows()
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
    return fold.scored.with_columns(pl.Series("quality_score", scores, pl.Float64))


def _publish(context: RunContext, round_: int, discriminators: Sequence[Discriminator]) -> None:
    rel = context.paths.discriminator(round_)
    target = context.store.local(rel)
    temporary = target.with_name(f"_tmp-{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for discriminator, place in zip(
        discriminators, _places(temporary, len(discriminators)), strict=True
    ):
        place.mkdir(exist_ok=True)
        discriminator.save(place)
    context.store.publish_folder(temporary, rel)


def _write_metrics(
    context: RunContext, round_: int, numbers: dict[str, float | None], num_cut: int
) -> None:
    context.write_metrics("data", round_, {"num_judged_texts_cut": num_cut}, part="judged")
    context.write_metrics("discriminator", round_, numbers)
