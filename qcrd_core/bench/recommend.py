"""Which method to use on a team's own questions: a small bench and its reading.

bench = load_recommending(Path("mine.yaml"))     the main methods, three seeds
print(recommendation(results))
"""

from pathlib import Path

from qcrd_core.bench.config import BenchConfig
from qcrd_core.bench.results import ALL_DATA, BenchResults
from qcrd_core.bench.statistics import Comparison
from qcrd_core.bench.text import difference_text
from qcrd_core.config.reading import apply_setting, parse_override, read_yaml
from qcrd_core.config.run import validate_config
from qcrd_core.report.text import seconds

_REFERENCE = "dss_sc"
_SEEDS = (0, 1, 2)
_FOR_HALF = 4
"""An interval narrows at best with the root of the number of seeds."""
_WITH_GOLD = (_REFERENCE, "qcrd", "dss_gold", "rft", "qcrd_false_step")
_WITHOUT_GOLD = (_REFERENCE, "qcrd", "qcrd_cross_fit")


def load_recommending(path: Path, overrides: tuple[str, ...] = ()) -> BenchConfig:
    """Make the bench that recommends a method for a run.

    Args:
        path: YAML file of the run.
        overrides: `section.key=value` texts on top of it.

    Returns:
        The bench: three seeds of each method that the run's labels allow.

    Raises:
        ConfigError: If the file or a setting breaks a rule.
    """
    content = read_yaml(path)
    for override in overrides:
        apply_setting(content, *parse_override(override), "command line")
    config = validate_config(content, str(path))
    bench = BenchConfig(
        name=f"{config.run.name[:50]}-methods",
        base=content,
        methods=_WITH_GOLD if config.data.label == "gold" else _WITHOUT_GOLD,
        seeds=_SEEDS,
        references=(_REFERENCE,),
    )
    for method in bench.methods:
        bench.run_config(method, _SEEDS[0])
    return bench


def recommendation(results: BenchResults) -> str:
    """Say which method to use, how sure that is, and what knowing better would cost.

    Args:
        results: A bench from `load_recommending`, complete or not.

    Returns:
        Sentences, one per line.
    """
    found = {
        method: comparison
        for (method, reference, share), comparison in results.comparisons.items()
        if reference == _REFERENCE and share == ALL_DATA and comparison.interval is not None
    }
    if not found:
        return (
            f"No recommendation yet: at least two seeds of {_REFERENCE} and of another method "
            "must finish."
        )
    best = max(found.values(), key=lambda comparison: comparison.difference)
    return "\n".join([_verdict(best), _power(results, best)])


def _verdict(best: Comparison) -> str:
    difference = f"{difference_text(best)} points against {_REFERENCE}"
    if best.is_significant and best.difference > 0:
        return f"Use {best.method} (`method: {best.method}` in the run's file): {difference}."
    return (
        f"Use {_REFERENCE}, the simplest: no method is better beyond chance. The best is "
        f"{best.method}, {difference}."
    )


def _power(results: BenchResults, best: Comparison) -> str:
    assert best.interval is not None
    half = 100 * (best.interval.high - best.interval.low) / 2
    cost = float(results.cells["seconds"].drop_nulls().sum())
    return (
        f"Differences below about {half:.1f} points cannot be seen with {len(best.seeds)} seeds "
        f"and these test questions, which took {seconds(cost)} of training. To see half of that "
        f"takes at least {_FOR_HALF} times as many seeds, {seconds(_FOR_HALF * cost)}."
    )
