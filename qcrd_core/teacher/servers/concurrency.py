"""How many samples one server draws at once, found out while it works.

A vLLM server refuses nothing: what it cannot decode yet waits in its queue. So there is no loss
that would tell when to stop, as TCP has it, and the signal is the throughput: the limit is doubled
as long as that pays, then set a little above the last limit that did, and tried half as high again
now and then, since servers and their other users change. Below the limit that pays, a server idles;
above it, samples only wait there, and at the end of a run all others wait for the slowest queue.
Requests are for several samples and are not torn apart, so the limit moves in whole requests.
Servers that do refuse (429, 503) or let a request time out halve it, as in TCP's AIMD.
"""

_FIRST = 16
"""Samples that a new server among several gets."""
_PAYS = 0.2
"""Least gain in throughput as a share of the gain in the limit."""
_HEADROOM = 1.5
"""Waiting samples keep the server busy while answers are on their way."""
_RETRY_FACTOR = 1.5
_WINDOWS_BETWEEN_RETRIES = 8
_MIN_WINDOW = 8
"""Requests that a rate is taken of, at least."""


class AdaptiveLimit:
    """A limit that follows what one server bears. Knows no clock: times are handed in."""

    def __init__(self, most: int, *, is_alone: bool = False) -> None:
        """Begin to adapt.

        Args:
            most: Never more than this.
            is_alone: There is no other server to lose time to; begins with `most`.
        """
        self.most = most
        self.value = most if is_alone else min(_FIRST, most)
        self._tried: tuple[int, float] | None = None
        """A lower limit and its rate, tokens a second, while a higher one is tried."""
        self._is_first_climb = True
        self._windows_to_wait = 0
        self._start, self._num_done, self._num_tokens, self._largest = 0.0, 0, 0, 1
        self._last_cut = float("-inf")

    def succeed(self, now: float, num_samples: int, num_tokens: int, *, is_full: bool) -> None:
        """Count the completions of a request.

        Args:
            now: Seconds of a monotonic clock.
            num_samples: Completions.
            num_tokens: Sampled tokens, of all together.
            is_full: Whether as many samples were in flight as the limit allows: where work is
                lacking, the rate says nothing of the server.
        """
        if not is_full:
            self._begin_window(now)
            return
        if self._num_done >= self.value:
            self._num_tokens += num_tokens
        elif self._num_done + num_samples >= self.value:
            # What was in flight when the limit changed has gone by: from here on it counts.
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
            sent: When the request was sent; one sent before the last cut says nothing new.
        """
        if sent < self._last_cut:
            return
        self.value = max(1, self.value // 2)
        self._last_cut = now
        self._hold()
        self._begin_window(now)

    def probe(self) -> None:
        """Begin anew with one request, for a server that comes back after failures."""
        self.value = 1
        self._tried, self._is_first_climb, self._windows_to_wait = None, True, 0
        self._begin_window(0.0)

    def _decide(self, rate: float) -> None:
        value = max(self._largest, self.value - self.value % self._largest)
        if self._tried is not None:
            before, rate_before = self._tried
            gain, raised = rate / rate_before - 1, value / before - 1
            if gain < _PAYS * raised:
                # A doubling may have passed the best limit by far; a retry has held it before.
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
