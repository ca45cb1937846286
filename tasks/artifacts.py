"""What a person sees of a task in the Prefect UI: progress bars, tables, charts, the report."""

import contextvars
import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from uuid import UUID

import httpx
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.exceptions import PrefectException

from qcrd_core.config.run import RunConfig
from qcrd_core.data.importing import ImportSummary
from qcrd_core.ops.janitor import Waste, megabytes
from qcrd_core.progress import listen
from qcrd_core.report import run_page
from qcrd_core.run.context import RunContext

logger = logging.getLogger(__name__)

_UPDATE_SECONDS = 5.0


@contextmanager
def progress_artifact() -> Iterator[None]:
    """Show the progress of the block on the running task, every few seconds.

    A separate thread does this, so that the work does not wait for the server.
    """
    drawing = _Drawing()
    # The copied context names the task run that the artifact belongs to.
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(drawing.draw_until_done,), daemon=True)
    with listen(drawing.note):
        thread.start()
        try:
            yield
        finally:
            drawing.done.set()
            thread.join(_UPDATE_SECONDS)


class _Drawing:
    """The newest progress, and the artifact that shows it."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self._newest: tuple[str, int, int] | None = None
        self._drawn: tuple[str, int, int] | None = None
        self._artifact: UUID | None = None

    def note(self, description: str, done: int, total: int) -> None:
        self._newest = (description, done, total)

    def draw_until_done(self) -> None:
        try:
            while not self.done.wait(_UPDATE_SECONDS):
                self._draw()
            self._draw()
        except (httpx.HTTPError, PrefectException) as error:
            logger.warning("The UI no longer shows this task's progress: %s", error)

    def _draw(self) -> None:
        newest = self._newest
        if newest is None or newest == self._drawn:
            return
        description, done, total = newest
        percent, text = 100 * done / max(total, 1), f"{description}: {done:,} of {total:,}"
        if self._artifact is None:
            made = create_progress_artifact(percent, description=text)
            assert isinstance(made, UUID)  # it is a coroutine only if an event loop runs
            self._artifact = made
        else:
            update_progress_artifact(self._artifact, percent, description=text)
        self._drawn = newest


def key_of(what: str, name: str) -> str:
    """The key of an artifact: one history per model, in the letters that Prefect allows.

    Args:
        what: What it shows.
        name: The model, `run.name`; of an import, the data set.

    Returns:
        For example `vote-svamp-t5` of `svamp_t5`.
    """
    return re.sub("[^a-z0-9]+", "-", f"{what}-{name}".lower()).strip("-")


def vote_artifacts(context: RunContext) -> None:
    """Show a run's vote: its counts, the majority's accuracy by agreement, several teachers."""
    counts = "Self-consistency over the teacher's rationales"
    name = context.config.run.name
    create_table_artifact(
        run_page.vote_counts(context), key=key_of("vote", name), description=counts
    )
    agreement = "Accuracy of the majority answer, by the share of voters who agree"
    create_table_artifact(
        run_page.vote_agreement(context), key=key_of("vote-audit", name), description=agreement
    )
    if context.config.teacher.others:
        teachers = "How right each teacher is, and what its votes count"
        create_table_artifact(
            run_page.teacher_rows(context), key=key_of("teachers", name), description=teachers
        )


def condense_artifact(context: RunContext) -> None:
    """Show what became of a run's long rationales."""
    title = "Rationales longer than teacher.condense.max_tokens, written again"
    key = key_of("condense", context.config.run.name)
    create_table_artifact(run_page.condense_counts(context), key=key, description=title)


def learning_curve_artifact(context: RunContext) -> None:
    """Show the validation accuracy of the rounds so far."""
    image = run_page.learning_curve(context)
    if image is not None:
        title = "Validation accuracy by round"
        key = key_of("learning-curve", context.config.run.name)
        create_markdown_artifact(image, key=key, description=title)


def scores_artifact(context: RunContext, round_: int) -> None:
    """Show the quality scores of a round."""
    image = run_page.score_histograms(context, round_)
    if image is not None:
        title = f"Quality scores of the rationales in round {round_}"
        key = key_of("quality-scores", context.config.run.name)
        create_markdown_artifact(image, key=key, description=title)


def report_artifact(context: RunContext, page: str) -> None:
    """Show the result of a run."""
    key = key_of("report", context.config.run.name)
    create_markdown_artifact(page, key=key, description="Result of the run")


def decision_artifact(config: RunConfig, page: str) -> None:
    """Show the decision of a night."""
    key = key_of("decision", config.run.name)
    create_markdown_artifact(page, key=key, description="Is the student better?")


def waste_artifact(waste: list[Waste], summary: str) -> None:
    """Show what the janitor found."""
    rows = [
        {**asdict(item), "num_bytes": megabytes(item.num_bytes), "modified": str(item.modified)}
        for item in waste
    ]
    create_table_artifact(rows, key="janitor", description=summary)


def audit_artifact(text: str, page: str) -> None:
    """Show an audit's tables, and the path of the page with its plots."""
    markdown = f"```\n{text}\n```\n\nPage with plots: `{page}`"
    create_markdown_artifact(markdown, key="audit", description="Can the rationales be trusted?")


def import_artifact(dataset: str, done: ImportSummary) -> None:
    """Show the counts of an import, and the setting that distils it."""
    rows = [{"what": name, "value": value} for name, value in asdict(done).items()]
    setting = f'`teacher.model = {{type: imported, generation: "{done.generation}"}}`'
    create_table_artifact(
        rows, key=key_of("import", dataset), description=f"To distil these rationales: {setting}"
    )
