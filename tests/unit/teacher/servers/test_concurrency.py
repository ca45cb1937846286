"""The limit of one server, against engines of known capacity and a clock of the test's own."""

import heapq
from itertools import cycle

import pytest

from qcrd_core.teacher.servers.concurrency import ConcurrencyLimit


def drive(limit, slots, num_samples, *sizes):
    """Keep an engine of so many slots as full as the limit allows; give the seconds it took.

    Requests are for so many samples each, in turn; 1 by default.
    """
    now, in_flight, begun, waiting, running = 0.0, 0, 0, [], []
    sizes = cycle(sizes or (1,))
    size, left, asked = next(sizes), {}, {}
    for _ in range(num_samples):
        while not in_flight or in_flight + size <= limit.value:
            request = len(asked)
            in_flight, left[request], asked[request] = in_flight + size, size, size
            waiting += [request] * size
            size = next(sizes)
        while waiting and len(running) < slots:
            begun += 1
            # Lengths differ by a half, as completions do.
            seconds = 0.75 + 0.5 * (begun * 0.618 % 1)
            heapq.heappush(running, (now + seconds, waiting.pop(0)))
        now, request = heapq.heappop(running)
        left[request] -= 1
        if not left[request]:
            together = asked[request]
            is_full = in_flight + size > limit.value
            limit.succeed(now, together, 10 * together, is_full=is_full)
            in_flight -= together
    return now


@pytest.mark.parametrize("slots", [4, 16, 17, 40, 100])
def test_adaptive_limit_fills_the_engine_and_queues_little(slots):
    limit = ConcurrencyLimit(most=512)
    drive(limit, slots, 200 * slots)
    assert slots <= limit.value <= max(2.5 * slots, 24)


@pytest.mark.parametrize("slots", [16, 17, 40, 100])
@pytest.mark.parametrize("sizes", [(3,), (5,), (10,), (20,), (1, 9), (1, 2, 7)])
@pytest.mark.parametrize("begins", ["anew", "after failures", "after a refusal"])
def test_adaptive_limit_of_whole_requests_fills_the_engine(slots, sizes, begins):
    limit = ConcurrencyLimit(most=512)
    if begins == "after failures":
        limit.probe()
    elif begins == "after a refusal":
        limit.fail(0.0, 0.0)
    drive(limit, slots, 400 * slots, *sizes)
    value = limit.value
    seconds = drive(limit, slots, 100 * slots, *sizes)
    assert seconds < 100 / 0.9
    assert value <= max(5 * slots, 6 * max(sizes), 40)


def test_adaptive_limit_never_exceeds_its_most():
    limit = ConcurrencyLimit(most=50)
    drive(limit, 200, 20_000)
    assert limit.value == 50


def test_adaptive_limit_follows_a_server_that_bears_more_later():
    limit = ConcurrencyLimit(most=512)
    drive(limit, 16, 3_000)
    before = limit.value
    drive(limit, 64, 30_000)
    assert before < 40 < 56 <= limit.value


def test_adaptive_limit_alone_begins_with_its_most():
    assert ConcurrencyLimit(most=128, is_alone=True).value == 128


def test_adaptive_limit_halves_once_for_requests_of_one_moment():
    limit = ConcurrencyLimit(most=64, is_alone=True)
    limit.fail(now=2.0, sent=1.0)
    limit.fail(now=2.1, sent=1.1)
    assert limit.value == 32
    limit.fail(now=5.0, sent=3.0)
    assert limit.value == 16


def test_adaptive_limit_without_enough_work_learns_nothing():
    limit = ConcurrencyLimit(most=512)
    for second in range(1000):
        limit.succeed(float(second), 1, 10, is_full=False)
    assert limit.value == 16


def test_adaptive_limit_after_failures_begins_with_one():
    limit = ConcurrencyLimit(most=512)
    limit.probe()
    assert limit.value == 1
    drive(limit, 16, 2_000)
    assert limit.value >= 16
