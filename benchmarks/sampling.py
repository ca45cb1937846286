"""What sampling through the pipeline costs against the bare engine, same prompts, same run.

    .venv/bin/python -m benchmarks.sampling [--teacher FOLDER] [--questions 48] [--samples 5]

FOLDER is a teacher as Hugging Face folder; without it the quickstart's is prepared. Four ways, one
after another (two engines on the same cores disturb each other):

- pipeline: `sample_shards` over the managed server, HTTP, parsing and Parquet included
- seeded: `LLM.generate` in vLLM's own process, one request a sample, with the pipeline's seeds
- unseeded: `LLM.generate` with n = K and no seed, vLLM's fastest way
- hf: `generate` of transformers

The time starts when the engine is loaded and warm. The median of the repeats counts. Targets:
pipeline >= 0.95 x seeded and >= 0.88 x unseeded. Writes a table here and JSON where --out says.
"""

import argparse
import json
import logging
import os
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from qcrd_core.config.models import FolderModel, GgufPackageModel
from qcrd_core.config.run import RunConfig, load_config, validate_config
from qcrd_core.data.load import load_questions
from qcrd_core.data.prompts import render_messages
from qcrd_core.data.spec import DatasetSpec, load_spec
from qcrd_core.ids import derive_seed
from qcrd_core.progress import progress
from qcrd_core.runtime.processes import has_accelerator
from qcrd_core.store.store import Store
from qcrd_core.teacher.budget import Meter, Tokens
from qcrd_core.teacher.generation import TOP_P, generation_identity
from qcrd_core.teacher.job import SamplingJob
from qcrd_core.teacher.plan import open_generation, plan_sampling, read_samples
from qcrd_core.teacher.prepare import PreparedTeacher, prepare_teacher
from qcrd_core.teacher.sample import sample_shards
from qcrd_core.teacher.servers.launch import find_vllm_python, server_environment
from qcrd_core.teacher.servers.managed import teacher_endpoints
from qcrd_core.teacher.servers.pool import TeacherPool

TARGETS = {"seeded": 0.95, "unseeded": 0.88}

_MAX_MODEL_LEN = 1024
_MAX_NUM_SEQS = 64


@dataclass(frozen=True)
class Bench:
    """What all four ways share."""

    config: RunConfig
    spec: DatasetSpec
    questions: pl.DataFrame
    prepared: PreparedTeacher
    work: Path
    num_repeats: int

    def seeds(self, repeat: int) -> list[int]:
        """Seeds of one repeat, question by question; the pipeline's own."""
        return [
            derive_seed(repeat, question_id) + sample_idx
            for question_id in self.questions["question_id"]
            for sample_idx in range(self.config.teacher.num_samples)
        ]


def main() -> None:
    """Run the benchmark and print the table."""
    arguments = _arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        bench = _bench(arguments, Path(folder))
        found, texts = _pipeline(bench)
        bare = _bare(bench, "vllm")
        if not arguments.without_hf:
            found |= _bare(bench, "hf")
    same = sum(a == b for a, b in zip(texts, bare.pop("texts"), strict=True))
    report = _report({**found, **bare}, same, len(texts))
    _show(report)
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", type=Path, help="Hugging Face folder of the teacher")
    parser.add_argument("--questions", type=int, default=48, help="questions")
    parser.add_argument("--samples", type=int, default=5, help="K, samples per question")
    parser.add_argument("--tokens", type=int, default=48, help="longest completion, tokens")
    parser.add_argument("--repeats", type=int, default=3, help="repeats; the median counts")
    parser.add_argument("--without-hf", action="store_true", help="leave transformers out")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    return parser.parse_args()


def _quickstart_teacher() -> Path:
    config = load_config(Path("configs/quickstart.yaml"))
    model = config.teacher.model
    assert isinstance(model, GgufPackageModel)
    return Path(prepare_teacher(model, config.run.scratch).name)


def _bench(arguments: argparse.Namespace, work: Path) -> Bench:
    teacher = arguments.teacher or _quickstart_teacher()
    content = {
        "run": {"name": "bench", "store": str(work / "store"), "scratch": str(work / "scratch")},
        "data": {"dataset": "word_problems", "max_train": arguments.questions},
        "teacher": {
            "model": {"type": "folder", "path": str(teacher)},
            "server": {
                "max_model_len": _MAX_MODEL_LEN,
                "extra_args": [f"--max-num-seqs={_MAX_NUM_SEQS}", "--enforce-eager"],
            },
            "num_samples": arguments.samples,
            "max_new_tokens": arguments.tokens,
            # Two shards of half the questions, both in flight, keep the engine as full as `seeded`.
            "questions_per_shard": -(-arguments.questions // 2),
            "concurrency": 2 * _MAX_NUM_SEQS,
        },
        "discriminator": {"model": {"type": "scratch"}},
        "student": {"model": {"type": "scratch"}},
    }
    config = validate_config(content, "benchmark")
    spec = load_spec(config.data.dataset)
    questions = load_questions(spec, config.data).filter(split="train").sort("question_id")
    prepared = prepare_teacher(FolderModel(path=teacher), config.run.scratch)
    return Bench(config, spec, questions, prepared, work, arguments.repeats)


def _pipeline(bench: Bench) -> tuple[dict[str, Any], list[str]]:
    log = bench.work / "vllm.log"
    with teacher_endpoints(bench.config.teacher, bench.prepared, bench.work, log) as pool:
        _sample(bench, pool, repeat=-1)  # warm up
        runs = [_sample(bench, pool, repeat) for repeat in range(bench.num_repeats)]
    return {"pipeline": [figure for figure, _ in runs]}, runs[0][1]


def _sample(bench: Bench, pool: TeacherPool, repeat: int) -> tuple[dict[str, float], list[str]]:
    run = bench.config.run.model_copy(update={"seed": max(repeat, 0)})
    config = bench.config.model_copy(update={"run": run})
    store = Store(f"{run.store}/{repeat}", run.scratch)
    identity = generation_identity(config, bench.spec, bench.prepared.identity)
    start = time.monotonic()
    plan = plan_sampling(
        store, bench.spec.name, identity, questions=bench.questions, teacher=config.teacher
    )
    open_generation(store, plan)
    job = SamplingJob(
        plan=plan,
        questions=bench.questions,
        spec=bench.spec,
        config=config,
        prepared=bench.prepared,
        pool=pool,
        store=store,
        run_id="benchmark",
        meter=Meter(config.budget, Tokens()),
    )
    with progress("Sample teacher", plan.num_missing, "samples") as bar:
        sampled = sample_shards(job, plan.shards, bar)
    seconds = time.monotonic() - start
    table = read_samples(
        store, plan.folder, questions=bench.questions, num_samples=config.teacher.num_samples
    )
    num_tokens = sum(result.num_tokens for result in sampled.shards)
    return {"num_tokens": num_tokens, "seconds": seconds}, table["text"].to_list()


def _bare(bench: Bench, engine: str) -> dict[str, Any]:
    teacher = bench.config.teacher
    settings: dict[str, Any] = {
        "max_model_len": _MAX_MODEL_LEN,
        "max_num_seqs": _MAX_NUM_SEQS,
        "enforce_eager": True,
        "generation_config": "vllm",
        "enable_prefix_caching": True,
    }
    if not has_accelerator():
        settings |= {
            "dtype": "float32",
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": 4096,
        }
    job = {
        "engine": engine,
        "engine_settings": settings,
        "teacher": bench.prepared.name,
        "messages": [render_messages(bench.spec, text) for text in bench.questions["question"]],
        "num_samples": teacher.num_samples,
        "seeds": [bench.seeds(repeat) for repeat in range(bench.num_repeats)],
        "sampling": {
            "temperature": teacher.sampling_temperature,
            "top_p": TOP_P,
            "max_tokens": teacher.max_new_tokens,
            **({"stop": list(bench.spec.answer.stop)} if bench.spec.answer.stop else {}),
        },
        "hf_batch_size": 16,
    }
    (bench.work / "job.json").write_text(json.dumps(job), encoding="utf-8")
    script = Path(__file__).with_name("bare_engines.py")
    environment = server_environment(teacher, bench.prepared.name, "unused")
    with (bench.work / f"{engine}.log").open("wb") as log:
        subprocess.run(
            [find_vllm_python(), script, bench.work / "job.json", bench.work / "result.json"],
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
            check=True,
        )
    result: dict[str, Any] = json.loads((bench.work / "result.json").read_text(encoding="utf-8"))
    return result


def _report(runs: dict[str, list[dict[str, float]]], same: int, num_texts: int) -> dict[str, Any]:
    rates = {
        name: statistics.median(run["num_tokens"] / run["seconds"] for run in of_one)
        for name, of_one in runs.items()
    }
    return {
        "tokens_per_second": rates,
        "pipeline_ratio": {
            name: rates["pipeline"] / rate for name, rate in rates.items() if name != "pipeline"
        },
        "targets": TARGETS,
        "num_equal_texts": same,
        "num_texts": num_texts,
        "runs": runs,
    }


def _show(report: dict[str, Any]) -> None:
    print(f"{'way':<10} {'tok/s':>8} {'pipeline is':>12} {'target':>8}")
    for name, rate in report["tokens_per_second"].items():
        ratio, target = report["pipeline_ratio"].get(name), TARGETS.get(name)
        shown = f"{ratio:.2f} x" if ratio else ""
        print(f"{name:<10} {rate:>8.1f} {shown:>12} {target or '':>8}")
    print(f"{report['num_equal_texts']} of {report['num_texts']} texts equal those of `seeded`.")


if __name__ == "__main__":
    main()
