"""Take the shipped teacher samples from a store in which the quickstart has sampled everything.

    make quickstart FRESH=1
    .venv/bin/python quickstart/ship_samples.py .qcrd/quickstart-fresh

Writes `quickstart/samples/`: `generation.json` and one part with the samples of all training
questions but the last NUM_LIVE, which every quickstart samples live. A run takes the part over only
if its own generation (model, adapter, prompt, sampling) has the same fingerprint.
"""

import argparse
import shutil
import sys
from pathlib import Path

NUM_LIVE = 60
TARGET = Path(__file__).parent / "samples"


def main(source: str) -> None:
    """Write the part.

    Args:
        source: Store of the finished run.
    """
    # Ran as a script, so the repository's root is not on the path yet.
    sys.path.insert(0, str(TARGET.parents[1]))
    from data_schemas import Rationales
    from qcrd_core.config.run import load_config
    from qcrd_core.stages.plan import plan_run
    from qcrd_core.store.store import Store, part_name
    from qcrd_core.teacher.plan import read_samples

    overrides = (f"run.store={source}", "teacher.reuse=[]")
    plan = plan_run(load_config(TARGET.parents[1] / "configs" / "quickstart.yaml", overrides))
    assert plan.sampling is not None
    if plan.sampling.num_missing:
        sys.exit(f"{source} must hold all samples; {plan.sampling.num_missing} are missing.")
    shipped = plan.split("train").head(-NUM_LIVE)
    rows = read_samples(
        plan.context.store,
        plan.sampling.folder,
        questions=shipped,
        num_samples=plan.context.config.teacher.num_samples,
    )
    shutil.rmtree(TARGET, ignore_errors=True)
    store = Store(str(TARGET), TARGET)
    store.write_json("generation.json", dict(plan.sampling.identity))
    name = part_name(rows.select("question_id", "sample_idx"))
    store.write_table(name, rows, Rationales)
    size = (TARGET / name).stat().st_size
    print(f"{rows.height} samples of {shipped.height} questions, {size / 1e6:.2f} MB, in {TARGET}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Take the quickstart's samples from a store.")
    parser.add_argument("store")
    main(parser.parse_args().store)
