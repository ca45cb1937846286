"""The project speaks plain English: phrases that readers stumbled over do not come back."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACES = (
    *("qcrd_core", "flows", "tasks", "explorer", "data_schemas", "docs", "configs"),
    *("benchmarks", "quickstart"),
)
PAGES = ("README.md", "CONTRIBUTING.md", "Makefile", "docker-compose.yml", "prefect.yaml")
RIDDLES = {
    r"must be left alone": "say what applies, and when",
    r"\b(?:of its|of their|of one's) own\b": "its own, their own",
    r"\bsaid:": "reports:, or name the tool as the subject",
    r"\b(?:is|are|were|was) to be\b": "must, will, or the verb itself",
    r"\b(?:be|is|are) had\b": "found, available",
    r"\bnobody will miss\b": "unused, leftover",
    r"\blikewise\b": "also, the same",
    r"\banew\b": "again",
    r"\bmeanwhile\b": "until then, while it runs",
    r"\b(?:comes?|came) to (?!the|an? end|life|rest)": "costs, totals, results in",
    r"\bbears?\b": "sustains",
    r"\bjudges?\b(?!ment)": "the discriminator",
    r"\blanes?\b": "server state",
    r"\b(?:per|each|every) a\b": "per question",
    r"\b(?:samples|rationales|tokens|steps|rows|texts) a (?:question|round|second|step|sample)\b": (
        "per question, per round"
    ),
}


def texts():
    listed = subprocess.run(
        ["git", "ls-files", *PLACES, *PAGES], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        path = ROOT / name
        is_text = path.suffix in {".py", ".md", ".yaml", ".yml", ".jinja", ".js", ""}
        if is_text and path.is_file() and not name.startswith("docs/results/"):
            yield name, path.read_text(encoding="utf-8")


@pytest.mark.parametrize("pattern", RIDDLES)
def test_no_text_of_the_project_has_a_phrase_that_reads_like_a_riddle(pattern):
    found = [
        f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]}"
        for name, text in texts()
        for match in re.finditer(pattern, text, re.IGNORECASE)
    ]

    assert found == [], f"write: {RIDDLES[pattern]}"
