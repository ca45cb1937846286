"""A bench's tables made of plausible numbers, for tests of whatever reads them."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from qcrd_core.bench.results import BenchDescription, BenchResults, analyse
from tests.support.tables import make_answers, make_cells

SKILLS = {
    "finetune": -0.55,
    "single_task": -0.4,
    "dss": -0.1,
    "dss_sc": 0.0,
    "mi": -0.05,
    "qcrd": 0.12,
    "qcrd_no_quality": 0.08,
    "qcrd_no_negatives": 0.02,
    "qcrd_verified_softmin": 0.4,
}
"""Methods in the order of the tables, and how good each is, in logits."""
SHARES = (0.25, 0.5, 0.75)


def synthetic_bench(
    *,
    name: str = "word_problems",
    skills: Mapping[str, float] = SKILLS,
    seeds: Sequence[int] = range(5),
    num_test: int = 200,
    num_rounds: int = 8,
    errors: Mapping[tuple[str, float, int], str] | None = None,
) -> BenchResults:
    """Make a bench; `errors` says which cells (method, share, seed) failed, and why."""
    generator = np.random.default_rng(7)
    difficulty = generator.normal(0.4, 1.6, size=num_test)
    share_methods = tuple(method for method in ("dss_sc", "qcrd") if method in skills)
    cells, answers = [], {}
    for method, skill in skills.items():
        for share in (*(SHARES if method in share_methods else ()), 1.0):
            for seed in seeds:
                key = (method, share, seed)
                head = {"method": method, "share": share, "seed": seed}
                if errors and key in errors:
                    cells.append({**head, "error": errors[key]})
                    continue
                gain = skill + 1.2 * math.log2(share) + generator.normal(0, 0.12)
                chance = 1 / (1 + np.exp(-(difficulty + gain)))
                right = generator.random(num_test) < chance
                answers[key] = "".join("01"[int(mark)] for mark in right)
                curve = _curve(float(chance.mean()), num_rounds, generator)
                cells.append({**head, **_numbers(method, share, right, curve, generator)})
    description = BenchDescription(
        name=name,
        dataset="word_problems",
        machine="2 CPU cores, torch 2.13",
        config="data:\n  dataset: word_problems\n",
        methods={method: f"what {method} learns" for method in skills},
        references=tuple(method for method in ("dss_sc", "qcrd") if method in skills),
        share_methods=share_methods,
        confidence=0.95,
    )
    return analyse(description, make_cells(cells), make_answers(answers))


def _curve(last: float, num_rounds: int, generator: np.random.Generator) -> list[float]:
    rising = last * (1 - np.exp(-(np.arange(num_rounds) + 1) / 2))
    return [float(v) for v in np.clip(rising + generator.normal(0, 0.01, num_rounds), 0, 1)]


def _numbers(
    method: str,
    share: float,
    right: np.ndarray,
    curve: list[float],
    generator: np.random.Generator,
) -> dict[str, object]:
    has_negatives = method.startswith("qcrd") and method != "qcrd_no_negatives"
    negative = {
        "active_hinge_share": float(generator.uniform(0.5, 0.9)),
        "negatives_right_share": float(generator.uniform(0.2, 0.5)),
        "auc_polarity": float(generator.uniform(0.5, 0.8)),
        "auc_correct": float(generator.uniform(0.5, 0.8)),
        "num_student_tokens": int(generator.integers(1_000_000, 1_500_000)),
    }
    return {
        "run_id": f"run-{method}",
        "settings": f'{{"loss.beta": {0.1 if has_negatives else 0.0}}}',
        "num_train": round(1000 * share),
        "num_steps": 800,
        "best_round": int(np.argmax(curve)),
        "validation_accuracy": curve,
        "num_test": right.size,
        "num_correct": int(right.sum()),
        "seconds": float(generator.uniform(200, 260)) * (1.7 if has_negatives else 1.0),
        "num_teacher_tokens": 311_204,
        "num_student_tokens": 0,
        "peak_memory_bytes": int(generator.integers(1_100, 1_300)) * 2**20,
        **(negative if has_negatives else {}),
    }
