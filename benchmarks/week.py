"""A week of days and nights: who answers, how well, and what the teacher costs.

    .venv/bin/python -m benchmarks.week                      the table
    .venv/bin/python -m benchmarks.week --publish docs       also docs/pictures/week.svg

A student from scratch answers support tickets behind `qcrd serve --teacher --capture`. A stub of
the teacher is right in nine of ten samples. Every night `redistill-nightly` trains on what was
kept. From day 4 on, six of ten tickets are about things that no training question names. See
`tests.support.week` and `tests.support.tickets`.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from prefect.testing.utilities import prefect_test_harness  # noqa: TID251  (nights are flows)

from qcrd_core.report.plots import Axis, Line, line_chart
from qcrd_core.report.svg import standalone
from tests.support.week import Calendar, Day, play_week

_HEAD = (
    "| day | tickets | to the teacher | right | right if the teacher answered all | teacher tokens "
    "by day, by night | tokens if the teacher answered all | night |\n"
    "|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    """Play, print a table, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--shift-day", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--publish", type=Path)
    args = parser.parse_args()
    calendar = Calendar(num_days=args.days, shift_day=args.shift_day, seed=args.seed)
    days = []
    print(_HEAD, flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="qcrd-week-") as folder,
        prefect_test_harness(server_startup_timeout=180),
    ):
        for day in play_week(Path(folder), calendar):
            print(_row(day), flush=True)
            days.append(day)
    if args.publish is not None:
        target = args.publish / "pictures" / "week.svg"
        target.write_text(_draw(days), encoding="utf-8")
        print(f"\n{target}")


def _row(day: Day) -> str:
    return (
        f"| {day.number} | {day.num_asked} | {day.num_escalated / day.num_asked:.0%} "
        f"| {day.num_right / day.num_asked:.1%} | {day.num_right_by_teacher / day.num_asked:.1%} "
        f"| {day.teacher_tokens:,} + {day.night_tokens:,} | {day.teacher_tokens_alone:,} "
        f"| {day.action} |"
    )


def _draw(days: Sequence[Day]) -> str:
    shares = {
        "right": [day.num_right / day.num_asked for day in days],
        "teacher alone": [day.num_right_by_teacher / day.num_asked for day in days],
        "to the teacher": [day.num_escalated / day.num_asked for day in days],
    }
    numbers = [float(day.number) for day in days]
    lines = [
        Line(name, numbers, values, tone) for tone, (name, values) in enumerate(shares.items())
    ]
    marks = (0.0, 0.25, 0.5, 0.75, 1.0)
    chart = line_chart(
        lines,
        Axis("day", marks=numbers),
        Axis("share of the tickets", is_share=True, marks=marks),
    )
    return standalone(chart)


if __name__ == "__main__":
    main()
