"""Progress: lines where there is no terminal, one live display where there is, and listeners."""

import contextlib
import logging
import os
import pty
import sys
import threading
import time

import pytest

from qcrd_core.progress import listen, progress


@contextlib.contextmanager
def _terminal(monkeypatch):
    """Put a pseudo-terminal in place of stderr; yields what was shown, once the block has ended."""
    monkeypatch.setenv("TERM", "xterm")
    reader, writer = pty.openpty()
    shown = []
    thread = threading.Thread(target=lambda: shown.extend(iter(lambda: _read(reader), "")))
    thread.start()
    with os.fdopen(writer, "w", encoding="utf-8") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        yield shown
    thread.join()
    os.close(reader)


def _read(descriptor):
    try:
        return os.read(descriptor, 65536).decode(errors="replace")
    except OSError:  # how Linux says that the other side was closed
        return ""


def test_progress_without_a_terminal_ends_with_one_line(caplog):
    with caplog.at_level(logging.INFO), progress("Sample", total=3, unit="samples") as bar:
        for _ in range(3):
            bar.advance(note="fast")
    (record,) = caplog.records
    assert record.message.startswith("Sample 3/3 | ")
    assert record.message.endswith(" samples/s fast")


@pytest.mark.parametrize(
    ("seconds", "done", "said"),
    [
        (16.0, 0, "Sample 0/100 | 0.0 samples/s"),
        (20.0, 10, "Sample 10/100 | 0.5 samples/s | ETA 180 s"),
        (40.0, 2, "Sample 2/100 | 3.0 samples/min | ETA 33 min"),
        (400.0, 2, "Sample 2/100 | 0.3 samples/min | ETA 5 h 27 min"),
    ],
)
def test_line_of_slow_work_is_easy_to_read(seconds, done, said, caplog, monkeypatch):
    with caplog.at_level(logging.INFO), progress("Sample", total=100, unit="samples") as bar:
        monkeypatch.setattr(time, "monotonic", lambda: bar._start + seconds)
        bar.advance(done)
        assert caplog.messages == [said]


def test_progress_that_fails_half_way_says_how_far_it_came(caplog):
    def fail():
        with progress("Sample", total=4) as bar:
            bar.advance()
            msg = "the teacher is gone"
            raise RuntimeError(msg)

    with caplog.at_level(logging.INFO), pytest.raises(RuntimeError, match="the teacher is gone"):
        fail()
    assert "Sample 1/4 | " in caplog.text


def test_listen_hears_the_last_state_of_progress_inside_its_block():
    heard = []
    with listen(lambda *state: heard.append(state)), progress("Sample", total=2) as bar:
        bar.advance(2)
    with progress("Train", total=1) as bar:
        bar.advance()
    assert heard[-1] == ("Sample", 2, 2)
    assert {state[0] for state in heard} == {"Sample"}


def test_progress_advanced_by_many_threads_counts_all():
    heard = []
    with listen(lambda *state: heard.append(state)), progress("Sample", total=400) as bar:
        threads = [
            threading.Thread(target=lambda: [bar.advance() for _ in range(100)]) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert heard[-1] == ("Sample", 400, 400)


def test_progress_on_a_terminal_shows_nested_bars_and_no_lines(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    with _terminal(monkeypatch) as shown:
        with progress("Sample", total=2) as outer:
            with progress("Train", total=5) as inner:
                inner.advance(5, note="loss 0.25")
            outer.advance(2)
        with progress("Evaluate", total=1) as bar:
            bar.advance()
    text = "".join(shown)
    assert [part for part in ("Sample", "5/5", "loss 0.25", "Evaluate") if part not in text] == []
    assert caplog.records == []
