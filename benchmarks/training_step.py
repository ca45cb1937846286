"""What a training step costs against the plain way: same loss, same gradient, same run.

    .venv/bin/python -m benchmarks.training_step [--student t5] [--repeats 9] [--json FILE]

Two ways, in turn, so that a disturbance hits both:

- qcrd: `QcrdObjective`. Questions are encoded once, candidates chosen without gradient in length
  buckets, only the chosen ones back-propagated.
- plain: every rationale has its own copy of its question, one forward of the Hugging Face model
  takes all of them, and all keep their gradient.

A step is forward and backward, in float32 on the CPU. Left out is what both ways share: padding the
batch and the optimiser. Questions have 96 tokens, rationales 12 to 64, evenly spread, about as the
SVAMP rationales of GPT-3.5 that MCC-KD's authors published (those of at most 64 words and marks:
quantiles 0.1, 0.25, 0.5, 0.75, 0.9 are 16, 26, 41, 52, 59). Dropout is 0. Before anything is timed,
loss and gradient must be equal to 1e-5. The median of the repeats counts. Target: plain takes at
least twice as long. Beside a busy process two threads wait for each other more than they compute:
OMP_NUM_THREADS=1 in the environment then gives steadier figures.
"""

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from benchmarks.machine import describe_machine, show_machine
from qcrd_core.config.models import ScratchWeights
from qcrd_core.config.run import LossSection
from qcrd_core.student.model import wrap
from qcrd_core.student.weights import make_student
from qcrd_core.training.batches import Example, Rationale, collate
from qcrd_core.training.objective import QcrdObjective

TOLERANCE = 1e-5
"""Largest difference of losses, relative, and of gradients, relative to the largest gradient."""

TARGET = 2.0

# An untrained student has a cross entropy of ln 2048 = 7.6 nats: under the paper's margin of 3 no
# hinge would act, and the negatives' gradient would go unchecked. The margin changes no cost.
LOSS = LossSection(delta=20.0)

_MAX_BUCKETS = 4  # as qcrd_core.training.train has it
_IGNORED = -100
_PAD, _END, _FIRST_WORD = 0, 1, 4


@dataclass(frozen=True)
class Sizes:
    """The batch and the student."""

    num_questions: int = 8
    num_positives: int = 5
    num_negatives: int = 1
    question_tokens: int = 96
    shortest_rationale: int = 12
    longest_rationale: int = 64
    label_tokens: int = 8
    vocab_size: int = 2048


SIZES = Sizes()


class _Weights(ScratchWeights):
    @property
    def ffn_size(self) -> int:
        return 3 * self.hidden_size


STUDENTS = {
    "t5": _Weights(architecture="t5", num_layers=4, dropout=0.0),
    "causal": _Weights(architecture="llama", num_layers=9, dropout=0.0),
}
"""8.4 and 8.7 million weights."""


class _Vocabulary:
    """What a model from scratch asks of a tokenizer."""

    pad_token_id, eos_token_id = _PAD, _END

    def __len__(self) -> int:
        return SIZES.vocab_size


@dataclass(frozen=True)
class Rows:
    """Targets of the plain way, each with its own copy of its question."""

    model_inputs: dict[str, Tensor]
    """What the model's forward takes."""
    expected: Tensor
    """Token that each position of the output must predict, or -100, [S, T]."""


Way = Callable[[], Tensor]
"""Computes the loss; the caller calls backward."""


def main() -> int:
    """Check that the ways are equal, time them, print the table.

    Returns:
        Exit code: 1 if the ways differ or the ratio is below --require.
    """
    arguments = _arguments()
    torch.manual_seed(0)
    model = make_student(STUDENTS[arguments.student], _Vocabulary(), seed=0).train()
    ways = make_ways(model, make_examples())
    loss_difference, gradient_difference = differences(model, ways)
    if not max(loss_difference, gradient_difference) <= TOLERANCE:
        msg = (
            f"Both ways must have the same loss and gradient to {TOLERANCE:g}; they differ by "
            f"{loss_difference:.1e} and {gradient_difference:.1e}. Run tests/unit/student."
        )
        print(msg, file=sys.stderr)
        return 1
    report = {
        "student": arguments.student,
        "num_weights": sum(weight.numel() for weight in model.parameters()),
        "sizes": asdict(SIZES),
        "machine": describe_machine(),
        "loss_difference": loss_difference,
        "gradient_difference": gradient_difference,
        **_figures(_measure(model, ways, arguments.repeats, arguments.warm_up)),
    }
    _show(report)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return int(arguments.require is not None and report["ratio"] < arguments.require)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--student", choices=STUDENTS, default="t5", help="kind of student")
    parser.add_argument("--repeats", type=_at_least_one, default=9, help="timed steps of each way")
    parser.add_argument("--warm-up", type=int, default=2, help="steps before, of each way")
    parser.add_argument("--require", type=float, help="exit with 1 below this ratio")
    parser.add_argument("--json", type=Path, help="JSON file for the figures")
    return parser.parse_args()


def _at_least_one(text: str) -> int:
    if int(text) < 1:
        msg = f"must be at least 1; got {text}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def make_examples() -> list[Example]:
    """Draw the questions of the batch: random tokens, evenly spread rationale lengths.

    Returns:
        `num_questions` examples; of each the positives come first.
    """
    source = random.Random(0)

    def tokens(length: int) -> list[int]:
        words = [source.randrange(_FIRST_WORD, SIZES.vocab_size) for _ in range(length - 1)]
        return [*words, _END]

    def rationale(index: int) -> Rationale:
        length = source.randint(SIZES.shortest_rationale, SIZES.longest_rationale)
        return Rationale(tokens(length), index < SIZES.num_positives, source.random())

    num_rationales = SIZES.num_positives + SIZES.num_negatives
    return [
        Example(
            question_id=str(number),
            predict_ids=tokens(SIZES.question_tokens),
            explain_ids=tokens(SIZES.question_tokens),
            label_ids=tokens(SIZES.label_tokens),
            rationales=tuple(rationale(index) for index in range(num_rationales)),
        )
        for number in range(SIZES.num_questions)
    ]


def make_ways(model: Any, examples: list[Example]) -> dict[str, Way]:
    """Prepare both ways on one model and one batch.

    Args:
        model: T5-type or causal Hugging Face model.
        examples: The batch.

    Returns:
        Name of the way -> its loss.
    """
    # The same parameters in modules of Hugging Face's own: `wrap` puts faster ones into the model.
    plain = deepcopy(model, {id(weight): weight for weight in model.parameters()})
    objective = QcrdObjective(wrap(model), LOSS, max_buckets=_MAX_BUCKETS)
    batch = collate(examples, _PAD, _END)
    make_rows = _encoder_rows if model.config.is_encoder_decoder else _causal_rows
    labels = make_rows([(e.predict_ids, e.label_ids) for e in examples])
    rationales = make_rows([(e.explain_ids, r.ids) for e in examples for r in e.rationales])
    scores = torch.tensor([[r.quality_score for r in e.rationales] for e in examples])
    return {
        "qcrd": lambda: objective(batch)[0],
        "plain": lambda: plain_loss(plain, labels, rationales, scores),
    }


def plain_loss(model: Any, labels: Rows, rationales: Rows, scores: Tensor) -> Tensor:
    """L of equation 8 without its discriminator term, all rationales with gradient.

    Shares no code with `QcrdObjective`, so that either can show a mistake of the other.

    Args:
        model: The student.
        labels: A row a question, B rows.
        rationales: P + N rows per question, its positives first, question by question.
        scores: Quality scores, [B, P + N].

    Returns:
        Scalar.

    Source:
        arXiv:2405.13014, equations 3, 6, 7, 8.
    """
    nll = _row_nll(model, rationales).view_as(scores)
    count = SIZES.num_positives
    positive, chosen = nll[:, :count].min(dim=1)
    pull = scores[:, :count].gather(1, chosen[:, None])[:, 0] * positive
    hinge, chosen = (nll[:, count:] - LOSS.delta).clamp(max=0).max(dim=1)
    push = (1 - scores[:, count:].gather(1, chosen[:, None])[:, 0]) * hinge
    contrastive = (pull - LOSS.beta * push).mean()
    label = _row_nll(model, labels).mean()
    return LOSS.alpha_label * label + LOSS.alpha_contrastive * contrastive


def _row_nll(model: Any, rows: Rows) -> Tensor:
    logits = model(**rows.model_inputs, use_cache=False).logits
    nll = functional.cross_entropy(
        logits.flatten(0, 1), rows.expected.flatten(), ignore_index=_IGNORED, reduction="none"
    )
    return nll.view_as(rows.expected).sum(dim=1) / (rows.expected != _IGNORED).sum(dim=1)


def _encoder_rows(pairs: list[tuple[list[int], list[int]]]) -> Rows:
    prompts, mask = _pad([prompt for prompt, _ in pairs])
    decoder_ids, _ = _pad([[_PAD, *target[:-1]] for _, target in pairs])
    expected, _ = _pad([target for _, target in pairs], _IGNORED)
    # Not `labels`: the model would then compute a mean over the batch that nobody wants.
    inputs = {"input_ids": prompts, "attention_mask": mask, "decoder_input_ids": decoder_ids}
    return Rows(inputs, expected)


def _causal_rows(pairs: list[tuple[list[int], list[int]]]) -> Rows:
    ids, mask = _pad([prompt + target for prompt, target in pairs])
    # The token before predicts: one step to the left of the joined text.
    before = [[_IGNORED] * (len(prompt) - 1) + target + [_IGNORED] for prompt, target in pairs]
    return Rows({"input_ids": ids, "attention_mask": mask}, _pad(before, _IGNORED)[0])


def _pad(rows: list[list[int]], value: int = _PAD) -> tuple[Tensor, Tensor]:
    padded = pad_sequence([torch.tensor(row) for row in rows], True, value)
    mask = pad_sequence([torch.ones(len(row), dtype=torch.long) for row in rows], True, 0)
    return padded, mask


def differences(model: Any, ways: dict[str, Way]) -> tuple[float, float]:
    """Compare the ways' losses and gradients.

    Args:
        model: Whose gradients are meant.
        ways: Both ways.

    Returns:
        Difference of the losses, relative; largest difference of any weight's gradients, relative
        to the largest gradient there is.
    """
    losses, gradients = [], []
    for name in ("qcrd", "plain"):
        losses.append(_step(model, ways[name]))
        gradients.append(
            torch.cat(
                [
                    (torch.zeros_like(weight) if weight.grad is None else weight.grad).flatten()
                    for weight in model.parameters()
                ]
            )
        )
    ours, plain = gradients
    largest = (ours - plain).abs().max() / plain.abs().max()
    return abs(losses[0] - losses[1]) / abs(losses[1]), largest.item()


def _step(model: Any, way: Way) -> float:
    model.zero_grad(set_to_none=True)
    loss = way()
    loss.backward()
    return loss.item()


def _measure(
    model: Any, ways: dict[str, Way], num_repeats: int, num_warm_up: int
) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(-num_warm_up, num_repeats):
        # Each way goes first every other time: neither profits from what the other leaves behind.
        for name in sorted(ways, reverse=repeat % 2 == 0):
            start = time.perf_counter()
            _step(model, ways[name])
            if repeat >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def _figures(seconds: dict[str, list[float]]) -> dict[str, Any]:
    medians = {name: statistics.median(of_one) for name, of_one in seconds.items()}
    return {
        "seconds_per_step": medians,
        "ratio": medians["plain"] / medians["qcrd"],
        "ratio_of_fastest": min(seconds["plain"]) / min(seconds["qcrd"]),
        "target": TARGET,
        "runs": seconds,
    }


def _show(report: dict[str, Any]) -> None:
    print(f"{'way':<6} {'ms/step':>8} {'fastest':>8} {'slowest':>8} {'questions/s':>12}")
    for name, seconds in report["seconds_per_step"].items():
        runs = report["runs"][name]
        print(
            f"{name:<6} {1000 * seconds:>8.0f} {1000 * min(runs):>8.0f} {1000 * max(runs):>8.0f} "
            f"{SIZES.num_questions / seconds:>12.1f}"
        )
    print(
        f"plain / qcrd {report['ratio']:.2f} x (fastest steps {report['ratio_of_fastest']:.2f} x), "
        f"target {TARGET:g} x"
    )
    print(
        f"Loss equal to {report['loss_difference']:.1e}, gradient to "
        f"{report['gradient_difference']:.1e}."
    )
    print(
        f"{report['student']} student of {report['num_weights'] / 1e6:.1f} M weights | "
        f"{SIZES.num_questions} questions of {SIZES.question_tokens} tokens | "
        f"{SIZES.num_positives} + {SIZES.num_negatives} rationales of "
        f"{SIZES.shortest_rationale} to {SIZES.longest_rationale} tokens"
    )
    show_machine(report["machine"])


if __name__ == "__main__":
    sys.exit(main())
