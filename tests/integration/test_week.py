"""A shift in what callers ask: passed on by day, learnt at night, answered the day after.

`benchmarks/week.py` plays the whole week.
"""

import pytest
from prefect.testing.utilities import prefect_test_harness

from tests.support.week import Calendar, play_week

pytestmark = pytest.mark.timeout(1200)


def test_student_learns_at_night_what_it_passed_on_by_day(tmp_path):
    calendar = Calendar(num_days=2, shift_day=1)
    with prefect_test_harness(server_startup_timeout=180):
        shift, after = play_week(tmp_path, calendar)

    share = [day.num_escalated / day.num_asked for day in (shift, after)]
    assert shift.action == "promoted"
    # It asks about what it was not trained on, and knows most of that the day after.
    assert share[0] > 0.4
    assert share[1] < share[0] - 0.2
    for day in (shift, after):
        # Its own answers and the teacher's together are as good as the teacher's alone.
        assert day.num_right >= day.num_right_by_teacher - 0.05 * day.num_asked
        assert day.teacher_tokens < day.teacher_tokens_alone
