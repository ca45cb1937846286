"""A week in the life of a student: days of traffic at a real server, and real nights.

    with prefect_test_harness():
        for day in play_week(folder, Calendar(num_days=7, shift_day=4)):
            print(day)

Every day callers send tickets to `qcrd serve --teacher --capture`. Every night the flow
`redistill-nightly` learns from what was captured. From the day of the shift on, many tickets name
things that no training question names. Validation and test hold both kinds from the beginning.
"""

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any
from unittest.mock import patch

from data_schemas import Captured
from flows.redistill_nightly import redistill_nightly
from qcrd_core.config.run import RunConfig, validate_config
from qcrd_core.data.captured import captured_folder
from qcrd_core.data.spec import load_spec
from qcrd_core.store.store import Store
from qcrd_core.teacher.rendering import render
from tests.support.distillation import write_settings
from tests.support.served import Server
from tests.support.stub_engine import StubEngine, stub_engine
from tests.support.tickets import Tickets, teach, write_dataset

_TINY = {"type": "scratch", "hidden_size": 64, "num_layers": 1, "dropout": 0.0}
_SHARE_HELD_BACK = 0.4
_CAPTURED = captured_folder("tickets")
_NUM_CLIENTS = 8
_PATIENCE = 300.0
"""Seconds; only a machine that is very busy needs so many."""
_CORRECTED = 10
"""One caller of ten says afterwards which answer was right."""


@dataclass(frozen=True)
class Calendar:
    """How a week is played."""

    num_days: int
    shift_day: int
    """Counted from 1: the first day with many tickets about new things."""
    num_tickets: int = 120
    """Per day."""
    num_train: int = 400
    num_held_back: int = 200
    """Validation questions, and as many test questions."""
    share_new: float = 0.6
    """Of the tickets since the shift."""
    num_samples: int = 3
    num_steps: int = 120
    precision: float = 0.9
    seed: int = 0


@dataclass(frozen=True)
class Day:
    """What happened on a day and in the night after it; no night follows the last day."""

    number: int
    num_asked: int
    num_right: int
    num_escalated: int
    num_right_by_teacher: int
    """Had the teacher answered all tickets."""
    teacher_tokens: int
    """Of the escalated tickets."""
    teacher_tokens_alone: int
    """Had the teacher answered all tickets."""
    night_tokens: int
    """Of the samples of the night."""
    action: str
    """What the night decided; none if there was no night."""


def play_week(folder: Path, calendar: Calendar) -> Iterator[Day]:
    """Play a week in a folder; needs a Prefect server.

    Yields:
        Day after day.
    """
    tickets = Tickets(calendar.seed)
    held_back = calendar.num_held_back
    splits = {
        "train": tickets.draw(calendar.num_train, 0.0),
        "validation": tickets.draw(held_back, _SHARE_HELD_BACK),
        "test": tickets.draw(held_back, _SHARE_HELD_BACK),
    }
    write_dataset(folder, splits)
    with stub_engine(writer=teach) as engine:
        config = validate_config(_settings(folder, engine, calendar), "week")
        first = _night(config)
        assert first["action"] == "promoted", first
        options = ("--store", "store", "--capture", "--teacher", engine.url)
        precision = ("--target-precision", str(calendar.precision))
        with Server(folder, "tickets", *options, *precision) as server:
            server.wait_until_ready(_PATIENCE)
            for number in range(1, calendar.num_days + 1):
                share_new = calendar.share_new if number >= calendar.shift_day else 0.0
                asked = tickets.draw(calendar.num_tickets, share_new)
                day = _day(number, asked, server, engine, config)
                if number < calendar.num_days:
                    day = _with_night(day, server, engine, config)
                yield day


def _day(
    number: int,
    asked: list[dict[str, str]],
    server: Server,
    engine: StubEngine,
    config: RunConfig,
) -> Day:
    before = _num_tokens(engine)
    with ThreadPoolExecutor(_NUM_CLIENTS) as pool:
        choices = list(pool.map(lambda row: _answer(server, row), asked))
    day_tokens = _num_tokens(engine) - before
    by_whom = Counter(choice["answered_by"] for choice in choices)
    assert by_whom["student_without_teacher"] == 0, by_whom
    answers = [choice["message"]["content"] for choice in choices]
    prompts, texts, told = _by_teacher_alone(config, asked)
    _wait_until_stored(config, {choice["question_id"] for choice in choices})
    return Day(
        number=number,
        num_asked=len(asked),
        num_right=_num_right(answers, asked),
        num_escalated=by_whom["teacher"],
        num_right_by_teacher=_num_right(told, asked),
        teacher_tokens=day_tokens,
        teacher_tokens_alone=sum(map(_num_words, (*prompts, *texts))),
        night_tokens=0,
        action="none",
    )


def _with_night(day: Day, server: Server, engine: StubEngine, config: RunConfig) -> Day:
    before = _num_tokens(engine)
    night = _night(config)
    if night["action"] == "promoted":
        server.wait_for_student(f"tickets/{night['version']}", _PATIENCE)
    tokens = _num_tokens(engine) - before
    return replace(day, night_tokens=tokens, action=str(night["action"]))


def _answer(server: Server, row: dict[str, str]) -> dict[str, Any]:
    """What a caller gets; some of them say afterwards what was right."""
    choice: dict[str, Any] = server.ask(row["question"]).raise_for_status().json()["choices"][0]
    if int(choice["question_id"], 16) % _CORRECTED == 0:
        body = {"question_id": choice["question_id"], "answer": row["team"]}
        server.client.post("/feedback", json=body).raise_for_status()
    return choice


def _night(config: RunConfig) -> dict[str, Any]:
    """One night. Its clock is a day ahead, so what was captured is of the day before."""
    settings = write_settings(config.run.scratch, config.model_dump(mode="json"))
    with patch("qcrd_core.data.captured.datetime", _Tomorrow):
        return dict(redistill_nightly(str(settings)))


class _Tomorrow(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:
        """The present, a day later."""
        return datetime.now(tz) + timedelta(days=1)


def _wait_until_stored(config: RunConfig, question_ids: set[str]) -> None:
    """A server writes every 30 s, and a night comes hours later."""
    store, deadline = Store(config.run.store, config.run.scratch), time.monotonic() + _PATIENCE
    while not question_ids <= set(store.read_table(_CAPTURED, Captured)["question_id"]):
        assert time.monotonic() < deadline, "the server has not written what it captured"
        time.sleep(0.5)


def _by_teacher_alone(
    config: RunConfig, asked: list[dict[str, str]]
) -> tuple[list[str], list[str], list[str]]:
    """Prompts, completions and answers if no student had answered."""
    spec = load_spec(config.data.dataset)
    prompts = [render(config, spec, row["question"], None) for row in asked]
    asked_texts = [str(one[-1]["content"]) for one in prompts if not isinstance(one, str)]
    texts = [teach(text, config.teacher.seed) for text in asked_texts]
    return asked_texts, texts, [text.rpartition(" ")[2].rstrip(".") for text in texts]


def _num_right(answers: list[str | None], asked: list[dict[str, str]]) -> int:
    return sum(answer == row["team"] for answer, row in zip(answers, asked, strict=True))


def _num_tokens(engine: StubEngine) -> int:
    """Words of all prompts and completions, which stand for tokens."""
    with engine.lock:
        asked = dict(engine.asked)
    return sum(
        count * (_num_words(prompt) + _num_words(teach(prompt, seed)))
        for (prompt, seed), count in asked.items()
    )


def _num_words(text: str) -> int:
    return len(text.split())


def _settings(folder: Path, engine: StubEngine, calendar: Calendar) -> dict[str, Any]:
    return {
        "run": {
            "name": "tickets",
            "store": str(folder / "store"),
            "scratch": str(folder / "scratch"),
            "seed": calendar.seed,
        },
        "data": {
            "dataset": str(folder / "tickets.yaml"),
            "label": "majority",
            "captured": "unsure",
        },
        "teacher": {
            "model": {"type": "hub", "name": "stub"},
            "endpoints": [engine.url],
            "num_samples": calendar.num_samples,
        },
        "voting": {"tie": "first"},
        "negatives": {"teacher_minority": False, "student": False},
        "loss": {"beta": 0.0, "quality_weights": False, "pos_select": "sample"},
        "discriminator": {"model": _TINY | {"hidden_size": 16}},
        "student": {"model": _TINY, "max_input_tokens": 64, "max_target_tokens": 48},
        "training": {
            "num_rounds": 1,
            "steps_per_round": calendar.num_steps,
            "learning_rate": 3e-3,
            "warmup_steps": 20,
            "global_batch_size": 32,
            "micro_batch_size": 32,
        },
        "evaluation": {"max_new_tokens": 8},
    }
