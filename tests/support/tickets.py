"""Support tickets that a small student learns in seconds, and a teacher that knows most of them.

A ticket names a thing, and the thing decides which team gets it. After the shift, callers ask about
things that no training question names.
"""

import hashlib
import itertools
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

_THINGS = {
    "network": ("router", "modem", "switch", "antenna", "firewall", "gateway", "cable", "repeater"),
    "printing": ("printer", "toner", "scanner", "plotter", "copier", "cartridge", "tray", "fax"),
    "furniture": ("chair", "desk", "shelf", "lamp", "locker", "carpet", "blind", "cabinet"),
    "vehicles": ("van", "truck", "tyre", "trailer", "brake", "engine", "bonnet", "clutch"),
}
_NUM_FAMILIAR = 5
"""The first ones of each team; the others come with the shift."""
_OPENINGS = ("Hello.", "Good morning.", "Dear team.", "Hi there.", "Help please.")
_TROUBLES = ("is broken", "makes noise", "was stolen", "got wet", "is too old", "smells", "is lost")
_TIMES = ("today", "yesterday", "last week", "on Monday", "since noon", "for days", "again")

TEAM = {thing: team for team, things in _THINGS.items() for thing in things}
FAMILIAR = tuple(thing for things in _THINGS.values() for thing in things[:_NUM_FAMILIAR])
NEW = tuple(thing for things in _THINGS.values() for thing in things[_NUM_FAMILIAR:])
_COMBINATIONS = tuple(itertools.product(_OPENINGS, _TROUBLES, _TIMES))


class Tickets:
    """Draws tickets, each at most once."""

    def __init__(self, seed: int) -> None:
        draw = random.Random(seed)
        self._left = {thing: draw.sample(_COMBINATIONS, len(_COMBINATIONS)) for thing in TEAM}
        self._draw = draw

    def draw(self, count: int, share_new: float) -> list[dict[str, str]]:
        """Rows with question and team; about a share of them name a new thing."""
        num_new = round(share_new * count)
        kinds = [NEW] * num_new + [FAMILIAR] * (count - num_new)
        self._draw.shuffle(kinds)
        return [self._ticket(self._draw.choice(things)) for things in kinds]

    def _ticket(self, thing: str) -> dict[str, str]:
        opening, trouble, when = self._left[thing].pop()
        kind = "new" if thing in NEW else "familiar"
        question = f"{opening} Our {thing} {trouble} {when}."
        return {"question": question, "team": TEAM[thing], "kind": kind}


def teach(prompt: str, seed: int, *, share_right: float = 0.9) -> str:
    """What the teacher writes: the right team in nine of ten samples."""
    asked = prompt.rpartition("Question: ")[2]
    thing = next(word for word in asked.replace(".", "").split() if word in TEAM)
    number = int(hashlib.sha256(json.dumps([asked, seed]).encode()).hexdigest(), 16)
    team = TEAM[thing]
    if number % 1000 >= 1000 * share_right:
        others = [name for name in _THINGS if name != team]
        team = others[number // 1000 % len(others)]
    return f"A {thing} belongs to {team}. The answer is {team}."


def write_dataset(folder: Path, splits: dict[str, Sequence[dict[str, str]]]) -> Path:
    """Write the data set `tickets` with these rows; returns its file."""
    for split, rows in splits.items():
        lines = (json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text("".join(lines))
    spec: dict[str, Any] = {
        "name": "tickets",
        "source": {"type": "files"} | {split: f"{split}.jsonl" for split in splits},
        "columns": {"question": "question", "gold_answer": "team", "template": "kind"},
        "answer": {"kind": "label", "labels": list(_THINGS), "marker": "The answer is"},
        "prompt": {"instruction": "Which team gets this ticket?"},
    }
    path = folder / "tickets.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return path
