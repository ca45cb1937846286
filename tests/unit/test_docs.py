"""The project's pages: each file and each heading that they name exists."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_ENDINGS = "cfg|css|in|jinja|js|lock|md|py|svg|toml|txt|yaml|yml"


def _tracked():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [Path(line) for line in listed.stdout.splitlines()]


TRACKED = _tracked()
ROOMS = {path.parts[0] for path in TRACKED if len(path.parts) > 1}
PAGES = sorted(path for path in TRACKED if path.suffix == ".md" and path.parts[0] != "tests")


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_docs_name_only_files_that_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    codes = re.findall(r"`([^`\n]+)`", text)
    # Within a command a bare file name is the reader's own file.
    named = {*codes, *(word for code in codes for word in code.split() if "/" in word)}

    missing = {name for name in named if _is_ours(name) and not _exists(name, ROOT / page.parent)}

    assert missing == set()


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_docs_link_only_to_pages_and_headings_that_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")

    for target, heading in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)", text):
        linked = ROOT / page.parent / target if target else ROOT / page
        assert linked.exists(), target
        assert not heading or heading in _headings(linked), f"{target}#{heading}"


def _is_ours(name):
    """Whether a word is a path of the repository: below one of its folders, or a file's name."""
    folder = re.fullmatch(r"([\w.-]+)/[\w./*-]*", name)
    if folder:
        return folder[1] in ROOMS
    return bool(re.fullmatch(rf"[\w-][\w.-]*\.({_ENDINGS})", name))


def _exists(name, beside):
    return any(any(folder.glob(name.rstrip("/"))) for folder in (ROOT, beside))


def _headings(page):
    """Anchors of a page's headings, as GitHub makes them."""
    found = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in found}
