"""Take the shipped teacher samples from a store in which a run has sampled everything.

    make quickstart FRESH=1
    .venv/bin/python -m quickstart.ship_samples .qcrd/quickstart-fresh
    .venv/bin/python -m quickstart.ship_samples .qcrd/bench --bench configs/bench_steps.yaml \
      --target benchmarks/steps/samples --num-live 0

Writes `generation.json` and one part with the samples of all training questions but the last
NUM_LIVE, which every quickstart samples live. A run takes the part over only if its own generation
(model, adapter, prompt, sampling) has the same fingerprint.
"""

import argparse
import shutil
import sys
from pathlib import Path

import polars as pl

from data_schemas import Rationales
from qcrd_core.bench.config import load_bench
from qcrd_core.config.run import RunConfig, load_config
from qcrd_core.stages.plan import plan_run
from qcrd_core.store.store import Store, part_name
from qcrd_core.teacher.plan import read_samples

NUM_LIVE = 24
TARGET = Path(__file__).parent / "samples"
CONFIG = Path(__file__).parents[1] / "configs" / "quickstart.yaml"


def main(source: str, bench: Path | None, target: Path, num_live: int) -> None:
    """Write the part.

    Args:
        source: Store of the finished run.
        bench: YAML file of a bench; None is the quickstart.
        target: Folder to write, replaced.
        num_live: Training questions, the last ones, whose samples are left out.
    """
    plan = plan_run(_config(bench, (f"run.store={source}", "teacher.reuse=[]")))
    (teacher,) = plan.teachers
    sampling = teacher.sampling
    assert sampling is not None
    if sampling.num_missing:
        sys.exit(f"{source} must hold all samples; {sampling.num_missing} are missing.")
    questions = plan.split("train")
    shipped = questions.head(questions.height - num_live)
    rows = read_samples(
        plan.context.store,
        sampling.folder,
        questions=shipped,
        num_samples=plan.context.config.teacher.num_samples,
    )
    # Their own run's name would make a run of that name count them as sampled by itself.
    rows = rows.with_columns(run_id=pl.lit("shipped"))
    shutil.rmtree(target, ignore_errors=True)
    store = Store(str(target), target)
    store.write_json("generation.json", dict(sampling.identity))
    name = part_name(rows.select("question_id", "sample_idx"))
    store.write_table(name, rows, Rationales)
    size = (target / name).stat().st_size
    print(f"{rows.height} samples of {shipped.height} questions, {size / 1e6:.2f} MB, in {target}")


def _config(bench: Path | None, overrides: tuple[str, ...]) -> RunConfig:
    if bench is None:
        return load_config(CONFIG, overrides)
    settings = load_bench(bench, overrides)
    return settings.run_config(settings.methods[0], settings.seeds[0])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Take a teacher's samples from a store.")
    parser.add_argument("store")
    parser.add_argument("--bench", type=Path)
    parser.add_argument("--target", type=Path, default=TARGET)
    parser.add_argument("--num-live", type=int, default=NUM_LIVE)
    arguments = parser.parse_args()
    main(arguments.store, arguments.bench, arguments.target, arguments.num_live)
