"""Draw what a run showed on the terminal as an SVG, for the README.

    .venv/bin/qcrd run --config configs/quickstart.yaml 2>&1 | tee quickstart.log
    .venv/bin/python docs/pictures/record.py quickstart.log

Each line of the picture is in the log: the plan, a bar for each piece of work that was finished,
the result and the next command. A log has no bars, only their numbers; they are drawn as `qcrd`
draws them on a terminal. `...` stands for lines that are left out. Prefect's log lines between the
bars, empty lines, clock times and the clone's own path are left out without a mark.
"""

import io
import re
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn
from rich.terminal_theme import TerminalTheme
from rich.text import Text

TARGET = Path(__file__).with_name("quickstart.svg")
_COLUMNS, _PLAN_LINES = 100, 5
_LOGGED = re.compile(r"^\d\d:\d\d:\d\d\.\d+ \| \w+ +\| (?P<logger>\S+).* - (?P<text>.*)$")
# A line with an ETA is one of many about work that goes on.
_FINISHED = re.compile(r"^(?P<what>.+) (?P<done>\d+)/(?P<total>\d+) \| (?P<note>[^|]*)$")
_THEME = TerminalTheme(
    (22, 27, 34),
    (201, 209, 217),
    [
        *((22, 27, 34), (255, 123, 114), (126, 231, 135), (227, 179, 65)),
        *((121, 192, 255), (210, 168, 255), (118, 227, 234), (201, 209, 217)),
    ],
)
# As rich draws a terminal, without its web font: a picture must fetch nothing.
_FORMAT = """<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg" role="img">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, SFMono-Regular, Menlo, Consolas,
  "DejaVu Sans Mono", monospace; font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font: bold 18px system-ui, sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def draw(log: str) -> str:
    """Draw the log of a finished run.

    Args:
        log: Standard output and error of `qcrd run`, written to a file or pipe.

    Returns:
        An SVG file.

    Raises:
        ValueError: If the log is not that of a run that finished.
    """
    lines = [line.rstrip() for line in log.splitlines()]
    logged = [number for number, line in enumerate(lines) if _LOGGED.match(line)]
    if not logged or not any(line.startswith("Run ") for line in lines[logged[-1] :]):
        msg = "The log must be that of a finished `qcrd run`, written to a file or pipe"
        raise ValueError(msg)
    first, last = logged[0], logged[-1] + 1
    parts = (*_plan(lines[:first]), *_work(lines[first:last]), *_result(lines[last:]))
    console = Console(record=True, width=_COLUMNS, file=io.StringIO(), highlight=False)
    for part in parts:
        console.print(part, no_wrap=True)
    return console.export_svg(
        title="qcrd", theme=_THEME, code_format=_FORMAT, unique_id="qcrd", font_aspect_ratio=0.61
    )


def _plan(lines: list[str]) -> Iterator[RenderableType]:
    command = next(line for line in reversed(lines) if line)
    yield Text.assemble(("$ ", "green"), (_command(command), "bold"))
    rows = [line for line in lines if line.startswith("  ")]
    for row in rows[:_PLAN_LINES]:
        name, value = row[:18], row[18:]
        yield Text.assemble((name, "cyan"), value)
    yield _left_out()


def _work(lines: list[str]) -> Iterator[RenderableType]:
    """What was finished before the rounds and in the last one."""
    logged = [found for line in lines if (found := _LOGGED.match(line))]
    votes = {found["text"] for found in logged if found["logger"].startswith("qcrd_core.vote")}
    # A vote that is logged twice is one.
    texts = list(dict.fromkeys(found["text"] for found in logged))
    entries = [
        (_round(text), _bar(found) if (found := _FINISHED.match(text)) else Text(text))
        for text in texts
        if text in votes or _FINISHED.match(text)
    ]
    last = max(round_ for round_, _ in entries if round_ is not None)
    for is_shown, group in groupby(entries, key=lambda entry: entry[0] in (None, last)):
        yield from (part for _, part in group) if is_shown else [_left_out()]


def _round(text: str) -> int | None:
    found = re.match(r"Round (\d+):", text)
    return int(found[1]) if found else None


def _bar(found: re.Match[str]) -> RenderableType:
    # The columns of `qcrd_core.progress`, without the times, which a log does not have.
    bars = Progress(
        TextColumn("{task.description:<28}"),
        BarColumn(bar_width=24, finished_style="green"),
        TextColumn(f"{found['done']}/{found['total']}".rjust(9), style="progress.download"),
        TextColumn("{task.fields[note]}"),
    )
    total = int(found["total"])
    bars.add_task(found["what"], total=total, completed=int(found["done"]), note=found["note"])
    return bars.make_tasks_table(bars.tasks)


def _result(lines: list[str]) -> Iterator[RenderableType]:
    """The result as it was printed, but for the times, which are those of one busy machine."""
    end = next((number for number, line in enumerate(lines) if line.startswith("real\t")), None)
    is_time = False
    for line in lines[:end]:
        is_time = line.startswith("Time:") or (is_time and not line.startswith("Report:"))
        if line.startswith("Time:"):
            yield _left_out()
        elif line and not is_time:
            if line.startswith(("Run ", "  round ")):
                yield Text("")
            yield _printed(line)


def _printed(line: str) -> Text:
    if re.match(r"\S*qcrd\S* predict ", line):
        return Text.assemble(("$ ", "green"), (_command(line), "bold"))
    # The path from the store on: where the clone lies is of no interest.
    text = Text(re.sub(r"(?<=Report: )/\S*/(?=\.qcrd/)", "", line))
    if line.startswith("*") and line[2:].lstrip()[:1].isdigit():
        text.stylize("bold green")
    text.highlight_regex(r"^  student.*", "bold green")
    return text


def _command(line: str) -> str:
    """A command by the program's name, wherever it was installed."""
    return f"qcrd {line.split(maxsplit=1)[1]}"


def _left_out() -> Text:
    return Text("  ...", "rgb(139,148,158)")


if __name__ == "__main__":
    TARGET.write_text(draw(Path(sys.argv[1]).read_text(encoding="utf-8")), encoding="utf-8")
