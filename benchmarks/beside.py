"""Negatives beside training: the rounds of one run, one after the other and with `run.ray_address`.

    ray start --head --num-cpus 0 && taskset -c 1 ray start --address ADDRESS --num-cpus 1
    PREFECT_API_URL=... taskset -c 0 .venv/bin/python -m benchmarks.beside --ray-address ADDRESS

The quickstart on its shipped samples, so that no teacher is asked, with few steps per round: with
its 80 a round trains eight times as long as its negatives take. Both ways train on the cores that
this process may use; the Ray node must have others, or the two only slow each other down. Printed
are the begin and end of each task of the rounds, seconds after the first round began, and the time
of all rounds. The negatives of both ways must be equal text by text.
"""

import argparse
import os
import tempfile
from datetime import datetime
from pathlib import Path

import httpx
import polars as pl

from data_schemas import Rationales
from flows.distill import distill
from qcrd_core.config.run import RunConfig, load_config
from qcrd_core.run.context import RunContext

_WIDTH = 60
Span = tuple[str, float, float]
"""Name of a task, its begin and end in seconds."""


def main() -> None:
    """Run both ways and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ray-address", required=True)
    parser.add_argument("--lag", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10, help="of a round")
    arguments = parser.parse_args()
    seconds, texts = [], []
    with tempfile.TemporaryDirectory() as folder:
        for way in ("local", "ray"):
            config = _config(Path(folder, way), arguments, way)
            distill(config)
            spans = _spans()
            seconds.append(max(end for _, _, end in spans))
            texts.append(_negatives(config))
            print(f"\n{way}: {seconds[-1]:.1f} s")
            _draw(spans)
    assert texts[0].equals(texts[1])
    saved = seconds[0] - seconds[1]
    print(f"\n{texts[0].height} negatives are equal; saved {saved:.1f} s, {saved / seconds[0]:.1%}")


def _config(folder: Path, arguments: argparse.Namespace, way: str) -> RunConfig:
    overrides = [
        f"run.store={folder}",
        f"run.scratch={folder}/scratch",
        "data.max_train=940",
        "teacher.endpoints=[http://127.0.0.1:9/v1]",
        f"negatives.lag={arguments.lag}",
        f"training.num_rounds={arguments.rounds}",
        f"training.steps_per_round={arguments.steps}",
    ]
    if way == "ray":
        overrides += [f"run.ray_address={arguments.ray_address}"]
    return load_config(Path("configs/quickstart.yaml"), tuple(overrides))


def _negatives(config: RunConfig) -> pl.DataFrame:
    (run,) = Path(config.run.store, "runs").iterdir()
    context = RunContext.open(config, run.name)
    rounds = range(config.negatives.lag, config.training.num_rounds)
    folders = [context.paths.negatives(round_) for round_ in rounds]
    tables = [context.store.read_table(folder, Rationales) for folder in folders]
    return pl.concat(tables).select("round", "question_id", "text")


def _spans() -> list[Span]:
    """Tasks of the rounds of the newest run."""
    with httpx.Client(base_url=os.environ["PREFECT_API_URL"], trust_env=False) as api:
        newest = {"sort": "START_TIME_DESC", "limit": 1}
        (run,) = api.post("/flow_runs/filter", json=newest).json()
        wanted = {"flow_runs": {"id": {"any_": [run["id"]]}}}
        tasks = api.post("/task_runs/filter", json=wanted).json()
    found = [
        (task["name"], *(_seconds(task[name]) for name in ("start_time", "end_time")))
        for task in tasks
        if task["name"][-1].isdigit()
    ]
    first = min(begin for _, begin, _ in found)
    return sorted(((name, a - first, b - first) for name, a, b in found), key=lambda span: span[1])


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _draw(spans: list[Span]) -> None:
    scale = _WIDTH / max(end for _, _, end in spans)
    for name, begin, end in spans:
        bar = " " * round(begin * scale) + "#" * max(1, round((end - begin) * scale))
        print(f"  {name:<34}{begin:7.1f}{end:7.1f}  {bar}")


if __name__ == "__main__":
    main()
