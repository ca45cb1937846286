"""How fast a job works, without its start: for `qcrd plan`."""

from types import SimpleNamespace

from qcrd_core.progress import Bar
from qcrd_core.stages.rounds import _Pace


def test_pace_counts_from_the_first_report_to_the_last(monkeypatch):
    clock = iter([10.0, 12.0, 14.0])
    monkeypatch.setattr("qcrd_core.stages.rounds.time", SimpleNamespace(monotonic=clock.__next__))
    bar = Bar("Score", 21, "texts")
    pace = _Pace(bar)
    for count in (5, 8, 8):
        pace.take({"advance": count})
    assert pace.numbers() == {"per_second": 4.0}
    assert bar.done == 21


def test_pace_of_a_job_that_reported_once_is_not_known():
    pace = _Pace(Bar("Score", 5, "texts"))
    pace.take({"advance": 5})
    assert pace.numbers() == {}
