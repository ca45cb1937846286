"""The concurrency limit of one server, adapted while the server works.

vLLM refuses nothing: samples that it cannot decode yet wait in its queue. TCP would lower its rate
when packets are lost; here nothing is lost, so the signal is throughput. The limit doubles as long
as doubling pays, is then set slightly above the last limit that paid, and is raised by half from
time to time, because servers and their other users change. Below the limit that pays, a server
idles; above it, samples only queue, and at the end of a run everybody waits for the longest queue.

A request asks for several samples and is never split, so the limit moves in whole requests. A
server that refuses requests (429, 503) or lets one time out has its limit halved, as in TCP's AIMD.
"""

_FIRST = 16
"""Samples in flight at a new server among several."""
_PAYS = 0.2
"""Smallest gain in throughput that pays, as a fraction of the raise of the limit."""
_HEADROOM = 1.5
"""Factor above the best limit: queued samples keep the server busy while answers travel."""
_RETRY_FACTOR = 1.5
_WINDOWS_BETWEEN_RETRIES = 8
_MIN_WINDOW = 8
"""Fewest requests over which a rate is measured."""


class ConcurrencyLimit:
    """Most samples in flight that one server can sustain. The caller passes the time."""

    def __init__(self, most: int, *, is_alone: bool = False) -> None:
        """Begin to adapt.

        Args:
            most: Upper bound of the limit.
            is_alone: Whether this is the only server; the limit then starts at `most`, because no
                other server could do the work.
        """
        self.most = most
        self.value = most if is_alone else min(_FIRST, most)
        self._tried: tuple[int, float] | None = None
        """The lower limit and its rate in tokens per second, while a higher limit is tried."""
        self._is_first_climb = True
        self._windows_to_wait = 0
        self._start, self._num_done, self._num_tokens, self._largest = 0.0, 0, 0, 1
        self._last_cut = float("-inf")

    def succeed(self, now: float, num_samples: int, num_tokens: int, *, is_full: bool) -> None:
        """Count the completions of a request.

        Args:
            now: Seconds of a monotonic clock.
            num_samples: Completions.
            num_tokens: Sampled tokens of all completions.
            is_full: Whether as many samples were in flight as the limit allows. Otherwise the rate
                reflects a lack of work, not the server.
        """
        if not is_full:
            self._begin_window(now)
            return
        if self._num_done >= self.value:
            self._num_tokens += num_tokens
        elif self._num_done + num_samples >= self.value:
            # Everything in flight when the limit changed has finished; measure from here on.
            self._start = now
        self._num_done += num_samples
        self._largest = max(self._largest, num_samples)
        window = max(self.value, _MIN_WINDOW * self._largest)
        if self._num_done >= self.value + window and now > self._start:
            self._decide(self._num_tokens / (now - self._start))
            self._begin_window(now)

    def fail(self, now: float, sent: float) -> None:
        """Halve the limit after a refusal or a timeout.

        Args:
            now: Seconds of a monotonic clock.
            sent: When the request was sent. A request sent before the last cut is ignored: it
                failed under the old limit.
        """
        if sent < self._last_cut:
            return
        self.value = max(1, self.value // 2)
        self._last_cut = now
        self._hold()
        self._begin_window(now)

    def probe(self) -> None:
        """Start again with one request, for a server that comes back after failures."""
        self.value = 1
        self._tried, self._is_first_climb, self._windows_to_wait = None, True, 0
        self._begin_window(0.0)

    def _decide(self, rate: float) -> None:
        value = max(self._largest, self.value - self.value % self._largest)
        if self._tried is not None:
            before, rate_before = self._tried
            gain, raised = rate / rate_before - 1, value / before - 1
            if gain < _PAYS * raised:
                # A doubling may overshoot by far, so estimate the best limit from the gain. A
                # retry starts from a limit that is known to work, so return to that.
                best = before * (1 + max(gain, 0.0)) * _HEADROOM if self._is_first_climb else before
                self.value = min(self.most, self.value, max(1, round(best)))
                self._hold()
                return
        elif self._windows_to_wait:
            self._windows_to_wait -= 1
            return
        if self.value < self.most:
            self._tried = (value, rate)
            factor = 2.0 if self._is_first_climb else _RETRY_FACTOR
            self.value = min(self.most, max(value + self._largest, round(value * factor)))
        else:
            self._hold()

    def _hold(self) -> None:
        self._tried, self._is_first_climb = None, False
        self._windows_to_wait = _WINDOWS_BETWEEN_RETRIES

    def _begin_window(self, now: float) -> None:
        self._start, self._num_done, self._num_tokens, self._largest = now, 0, 0, 1
