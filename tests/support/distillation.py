"""A whole run at tiny size: word problems, a teacher that is mostly right, real DeepSpeed jobs.

`qcrd` runs as a child process, as a user starts it.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from qcrd_core.config.run import validate_config
from qcrd_core.data.word_problems import generate
from qcrd_core.run.context import RunContext
from tests.support.stub_engine import StubEngine, stub_engine

NUM_TRAIN, NUM_VALIDATION, NUM_TEST = 24, 6, 8
NUM_WEAK = 3
"""K of the second of two teachers."""
_NOBODY = "http://127.0.0.1:9/v1"
_TINY = {"type": "scratch", "hidden_size": 32, "ffn_size": 64, "num_layers": 1, "num_heads": 2}
_TINY = {"type": "scratch", "hidden_size": 32, "num_layers": 1}


@contextmanager
def taught_teacher(**settings: Any) -> Iterator[StubEngine]:
    """An engine that knows the word problems: four of five samples are right.

    Asked to condense, it keeps each answer.
    """
    questions = generate(0, num_train=1000, num_validation=200, num_test=400)
    gold = {
        f"Question: {text}\nAnswer:": (target, answer)
        for text, target, answer in questions.select(
            "question", "gold_target", "gold_answer"
        ).iter_rows()
    }

    def write(prompt: str, seed: int) -> str:
        if "Answer of the explanation: " in prompt:
            answer = prompt.partition("Answer of the explanation: ")[2].split("\n")[0]
            return f" + {answer}. The answer is {answer}."
        target, answer = gold[prompt]
        number = int(answer) + (seed % 5 == 0) * (1 + seed % 7)
        return f" {target} = {number}. The answer is {number}."

    with stub_engine(writer=write, **settings) as engine:
        yield engine


@contextmanager
def two_teachers(**weak: Any) -> Iterator[tuple[StubEngine, StubEngine]]:
    """`taught_teacher`, and an engine of the model `weak` that is wrong in three of four samples.

    Args:
        weak: Settings of the second engine.

    Yields:
        Both.
    """
    questions = generate(0, num_train=1000, num_validation=200, num_test=400)
    rows = questions.select("question", "gold_answer").iter_rows()
    gold = {f"Question: {text}\nAnswer:": int(answer) for text, answer in rows}

    def write(prompt: str, seed: int) -> str:
        number = gold[prompt] + (seed % 4 != 0) * 2
        return f" I guess {number}. The answer is {number}."

    with taught_teacher() as good, stub_engine(writer=write, model="weak", **weak) as engine:
        yield good, engine


def settings_for_two(
    folder: Path, good: StubEngine, weak: StubEngine, **sections: dict[str, Any]
) -> dict[str, Any]:
    """`settings_for` with the engines of `two_teachers`."""
    other = {
        "model": "weak",
        "endpoints": [weak.url],
        "api": "completions",
        "num_samples": NUM_WEAK,
        "questions_per_shard": 4,
    }
    teacher = {"others": [other], **sections.pop("teacher", {})}
    return settings_for(folder, good, teacher=teacher, **sections)


def settings_for(
    folder: Path, engine: StubEngine | None, **sections: dict[str, Any]
) -> dict[str, Any]:
    """Settings of a run of three rounds with negatives from the round before.

    Without an engine the teacher is at an address where nobody answers.
    """
    content: dict[str, Any] = {
        "run": {"name": "tiny", "store": str(folder / "store"), "scratch": str(folder / "scratch")},
        "data": {
            "dataset": "word_problems",
            "max_train": NUM_TRAIN,
            "max_validation": NUM_VALIDATION,
            "max_test": NUM_TEST,
        },
        "teacher": {
            "model": {"type": "hub", "name": "stub"},
            "endpoints": [engine.url if engine else _NOBODY],
            "api": "completions",
            "questions_per_shard": 4,
        },
        "negatives": {"lag": 1, "max_new_tokens": 48},
        "discriminator": {
            "model": _TINY,
            "pretrain_steps": 5,
            "update_steps": 2,
            "max_tokens": 128,
        },
        "student": {"model": _TINY, "max_input_tokens": 128},
        "training": {
            "num_rounds": 3,
            "steps_per_round": 4,
            "global_batch_size": 4,
            "micro_batch_size": 4,
        },
        "evaluation": {"max_new_tokens": 8},
        # So few steps teach nothing.
        "promotion": {"first_accuracy": 0.0},
    }
    for name, section in sections.items():
        content[name] = {**content.get(name, {}), **section}
    return content


def as_changes(content: dict[str, Any]) -> list[str]:
    """The same settings as lines of a form that begins with a file."""
    return [
        f"{section}.{name}={json.dumps(value)}"
        for section, settings in content.items()
        for name, value in settings.items()
    ]


def write_settings(folder: Path, content: dict[str, Any]) -> Path:
    """Write settings where `--config` finds them."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def command(*arguments: str | Path) -> list[str]:
    """`qcrd` with arguments, by this interpreter."""
    start = "from flows.commands.cli import main; main()"
    return [sys.executable, "-c", start, *map(str, arguments)]


def qcrd(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `qcrd` to its end."""
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
        env=_environment(),
    )


def run_flow(name: str, settings: Path) -> subprocess.CompletedProcess[str]:
    """Run a flow of `flows/` that has no command of its own, to its end, as a worker does."""
    start = (
        f"import sys; from pathlib import Path; from flows.{name} import {name}; "
        f"from qcrd_core.config.run import load_config; {name}(load_config(Path(sys.argv[1])))"
    )
    return subprocess.run(
        [sys.executable, "-c", start, str(settings)],
        capture_output=True,
        text=True,
        check=False,
        env=_environment(),
    )


def run_script(script: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a folder to its end, with a Prefect home of its own."""
    quiet = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
        env={**_environment(), **quiet, "PREFECT_HOME": str(folder / "prefect")},
    )


def start_qcrd(
    *arguments: str | Path, log: Path, cwd: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start `qcrd` as the leader of a process group of its own."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command(*arguments),
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            cwd=cwd,
            env=_environment(),
        )


def open_run(content: dict[str, Any]) -> RunContext:
    """Open the one run of a store."""
    config = validate_config(content, "test")
    (folder,) = Path(config.run.store, "runs").iterdir()
    return RunContext.open(config, folder.name)


def rationales(context: RunContext) -> pl.DataFrame:
    """What the teacher wrote, without what a second run may change."""
    from qcrd_core.vote.rationales import read_rationales

    return read_rationales(context).drop("created_at", "run_id")


def _environment() -> dict[str, str]:
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "COLUMNS": "100"}
