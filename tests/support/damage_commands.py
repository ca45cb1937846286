"""Commands before damaged files: which files each relies on, and what it must never do."""

import contextlib
import io
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from cyclopts import CycloptsError
from starlette.testclient import TestClient

from data_schemas import Captured
from explorer.app import make_app
from explorer.data import Explorer
from flows.commands.cli import app
from qcrd_core.errors import QcrdError, StoreError
from qcrd_core.registry import registry
from qcrd_core.report.page import write_report
from qcrd_core.report.terminal import terminal_summary
from qcrd_core.serving.app import ServerOptions
from qcrd_core.serving.app import make_app as serving_app
from qcrd_core.serving.batches import Batches
from qcrd_core.serving.capture import Capture
from qcrd_core.serving.metrics import ServerMetrics
from qcrd_core.serving.source import find_student
from qcrd_core.serving.student import ServedStudent
from qcrd_core.stages.prediction import fetch_student
from qcrd_core.store.store import Store
from qcrd_core.student.jobs import AnswerFile
from qcrd_core.student.predict import answer_file
from tests.support.damage import BREAKING, CHAMPION, FIRST, OURS, PATHS, Site, damages
from tests.support.synthetic_run import GENERATION, RUN_ID


@dataclass(frozen=True)
class Command:
    """A command, and what it reads."""

    call: Callable[[], object]
    relies_on: tuple[str, ...]
    """How paths of files begin without which, whole, it must not succeed."""
    may_lack: tuple[str, ...] = ()
    """How paths of those begin that need not exist."""

    def must_refuse(self, path: str, damage: str) -> bool:
        """Whether a success with this damage would be a silent one."""
        if not path.startswith(self.relies_on) or damage not in BREAKING:
            return False
        if damage == "truncated" and path.endswith(".yaml"):
            return False  # half of its lines are settings too
        return damage != "missing" or not path.startswith(self.may_lack)


def commands(site: Site) -> dict[str, Command]:
    """Commands by name."""
    store, root = site.store, f"store/{PATHS.root}/"
    student, models = f"{root}student/", "store/models/synthetic/"
    champion, samples = f"{models}{CHAMPION}/", "store/datasets/word_problems/rationales/"
    # Without a result a run is not complete, which is no damage.
    result = f"{root}result.json"
    records = (f"{root}config.yaml", f"{root}environment.json", f"{root}dataset.json", result)
    voted = (*records, f"{root}questions", f"{root}votes")
    parts = (f"{samples}generation={GENERATION}/part",)
    measured = (f"{root}metrics/", f"{root}scores/")

    def qcrd(*arguments: str) -> Callable[[], object]:
        return lambda: app(
            list(arguments), exit_on_error=False, print_error=False, result_action="return_value"
        )

    def promote() -> None:
        version = registry.register(store, RUN_ID, name="again")
        rule = registry.version_config(store, version).promotion
        registry.decide(store, version.model, version.name, rule)

    def report() -> None:
        write_report(store, RUN_ID)
        terminal_summary(store, RUN_ID)

    def predict() -> None:
        folder = fetch_student(f"store/{PATHS.best_student}", Path(".qcrd"))
        answer_file(
            AnswerFile(folder, Path("pens.jsonl"), Path(".qcrd/answers.parquet"), 8), lambda _: None
        )

    def page(path: str) -> Callable[[], object]:
        def get() -> None:
            app = make_app(Explorer("store", Path(".qcrd/scratch")))
            answer = TestClient(app, OURS).get(path)
            if answer.status_code != 200 or "damaged: " in answer.text:
                raise StoreError(str(answer.status_code))

        return get

    def serve() -> None:
        source = find_student("synthetic", Store("store", Path(".qcrd/scratch")), Path(".qcrd"))
        metrics = ServerMetrics()
        served = ServedStudent.load(source.folder, source.label, batch_size=8)
        capture = Capture(Store("store", Path(".qcrd/scratch")), metrics)
        capture.open(served.metadata.dataset)
        batches = Batches(served, batch_size=8, max_waiting=8, metrics=metrics)
        with TestClient(serving_app(batches, ServerOptions("s", "k"), capture=capture)) as client:
            client.headers["authorization"] = "Bearer k"
            asked = {"model": "s", "prompt": Captured.example["question"]}
            answer = client.post("/v1/completions", json=asked).raise_for_status().json()
            sent = {"question_id": answer["choices"][0]["question_id"], "answer": "10"}
            client.post("/v1/feedback", json=sent).raise_for_status()

    run, here = f"store/{PATHS.root}", f"/runs/{RUN_ID}"

    def mark() -> None:
        key = {"generation": GENERATION, "question_id": "q0002", "sample_idx": "1"}
        client = TestClient(make_app(Explorer("store", Path(".qcrd/scratch"))), OURS)
        answer = client.post(
            f"{here}/mark",
            data={**key, "mark": "keep"},
            headers={"origin": OURS},
            follow_redirects=False,
        )
        if answer.status_code != 303:
            raise StoreError(answer.text)

    decided = f"{models}champion.json"
    kept = tuple(f"store/datasets/word_problems/{name}/" for name in ("captured", "feedback"))
    read = (*voted, *parts)
    lacking = (result, *parts)
    return {
        "validate": Command(
            qcrd("validate", "store"),
            ("store/",),
            (
                *(result, decided, *parts, *measured, f"{root}polarity"),
                *("store/datasets/word_problems/curation/", "store/datasets/pens/", *kept),
                *(f"{models}{CHAMPION}/DONE", f"{models}{FIRST}/DONE"),
            ),
        ),
        "inspect": Command(qcrd("inspect", run), read, lacking),
        "inspect --question": Command(qcrd("inspect", run, "--question", "q0001"), read, lacking),
        "inspect --where": Command(qcrd("inspect", "store", "--where", "true"), parts, parts),
        "audit": Command(qcrd("audit", run), read, lacking),
        "export-sft": Command(qcrd("export-sft", run, ".qcrd/out.jsonl"), read, lacking),
        "report": Command(report, (*voted, f"{root}predictions/", *measured), (result, *measured)),
        "promote": Command(
            promote,
            (
                *voted,
                f"{root}predictions/",
                student,
                decided,
                f"{champion}DONE",
                f"{champion}test/",
            ),
            (decided,),
        ),
        "models": Command(
            qcrd("models", "synthetic", "--store", "store"),
            (decided, f"{champion}version.json"),
            (decided,),
        ),
        "rollback": Command(
            qcrd("rollback", "synthetic", "--store", "store", "--reason", "x"), (decided,)
        ),
        # A copy of a student without DONE has no hashes to compare.
        "predict": Command(predict, (student, "pens.jsonl"), (f"{student}DONE",)),
        "dry run": Command(
            qcrd("run", "--config", "run.yaml", "--dry-run"),
            ("run.yaml", "pens", "store/datasets/pens/rationales/"),
        ),
        "dry run of captured": Command(
            qcrd(
                *("run", "--config", "run.yaml", "data.captured=all", "data.label=majority"),
                "--dry-run",
            ),
            ("store/datasets/pens/captured/", "store/datasets/pens/feedback/"),
            ("store/datasets/pens/captured/", "store/datasets/pens/feedback/"),
        ),
        "serve": Command(serve, (decided, champion, *kept), (f"{champion}run/", *kept)),
        "plan": Command(
            qcrd("plan", "--config", "plan.yaml", "--questions", "9", "--gpus", "1"),
            ("plan.yaml", f"{root}metrics/sampling", f"{root}environment.json"),
            (f"{root}metrics/sampling",),
        ),
        "janitor": Command(
            qcrd("janitor", "--store", "store"),
            (f"{root}environment.json", decided, f"{champion}version.json"),
            (f"{root}environment.json", decided, f"{champion}version.json"),
        ),
        "store page": Command(page("/"), records, (f"{root}config.yaml", result)),
        "run page": Command(page(here), (*read, *measured[1:]), (*lacking, *measured)),
        "rows page": Command(page(f"{here}/rows"), read, lacking),
        "question page": Command(page(f"{here}/question/q0001"), read, lacking),
        "answers page": Command(page(f"{here}/answers"), voted, (result,)),
        "mark": Command(mark, records, (result,)),
    }


@dataclass(frozen=True)
class Outcome:
    """What a command made of a damaged file."""

    error: BaseException | None
    seconds: float
    said: str
    harmed: list[str]
    """Other files that are not what they were, but for those that the command writes."""


def attempt(site: Site, path: str, content: bytes | None, command: Command) -> Outcome:
    """Damage a file, run a command, and restore everything."""
    target = site.folder / path
    if content is None:
        target.unlink()
    else:
        target.write_bytes(content)
    error: BaseException | None = None
    (site.folder / ".qcrd").mkdir(exist_ok=True)
    start, said = time.monotonic(), io.StringIO()
    with (
        contextlib.chdir(site.folder),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        try:
            command.call()
        except BaseException as caught:  # noqa: BLE001  (a panic of polars is no Exception)
            error = caught
    seconds = time.monotonic() - start
    if (site.folder / ".qcrd").exists():
        shutil.rmtree(site.folder / ".qcrd")
    written = re.compile(
        r"report\.html$|audit\.html$|champion\.json$|/again/|/(curation|captured|feedback)/part-"
    )
    harmed = [name for name in site.restore() if name != path and not written.search(name)]
    return Outcome(error, seconds, said.getvalue(), harmed)


Case = tuple[str, str, bytes | None, str]
_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]")


def cases(site: Site) -> Iterator[Case]:
    """All cases: what breaks a file meets all commands that read it, all else meets one.

    Yields:
        Path, damage, content and command.
    """
    turn = count()
    for path, whole in sorted(site.whole.items()):
        readers = [name for name, one in commands(site).items() if path.startswith(one.relies_on)]
        for damage, content in damages(path, whole):
            if not readers or content == whole or f"/{FIRST}/" in path:
                continue
            chosen, number = readers, next(turn)
            if damage not in BREAKING:  # of what `validate` alone reads, a quarter is enough
                skips = len(readers) == 1 and number % 4 > 0
                chosen = [] if skips else [readers[number % len(readers)]]
            yield from ((path, damage, content, name) for name in chosen)


def fault(site: Site, case: Case) -> str | None:
    """What is wrong with how a command met a damage; None if nothing is."""
    path, damage, content, name = case
    command = commands(site)[name]
    outcome = attempt(site, path, content, command)
    if outcome.harmed:
        return f"harmed {outcome.harmed}"
    if outcome.seconds > 10:
        return f"took {outcome.seconds:.0f} s"
    if outcome.error is None:
        return "succeeded" if command.must_refuse(path, damage) else None
    if not isinstance(outcome.error, QcrdError | CycloptsError):
        return repr(outcome.error)
    text = str(outcome.error)
    if _CONTROLS.search(text) or len(text) > 1000:
        return f"said {text[:200]!r}"
    may_lack = damage == "missing" and path.startswith(command.may_lack)
    folder = path.rpartition("/")[0].removeprefix("store/")
    if name == "validate" and not may_lack and folder not in outcome.said:
        return f"did not name it: {outcome.said!r}"
    return None
