"""The password of the local Prefect server, and links that log a browser in once.

    password = read_password(home)                    made at the first call
    print(login_link(home, url))                      http://127.0.0.1:4200/qcrd/login#<code>
    app.router.routes[:0] = login_routes(home)        what the server does with the link

Without a password every page in a browser and every user of the machine could start a flow run, and
a flow run may start any command. Prefect's UI keeps the password in the browser's local storage.
"""

import contextlib
import re
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING

from qcrd_core.config.files import write_private

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

_PATH = "/qcrd/login"
_CODES, _CODE = "logins", re.compile(r"[\w-]{20,64}", re.ASCII)
_CODE_SECONDS = 600.0
_PAGE = """<!doctype html><meta charset="utf-8"><title>Log in</title><p id="text">Logging in.</p>
<script type="module">
const code = location.hash.slice(1)
history.replaceState(null, "", location.pathname)
const answer = await fetch(location.pathname, {method: "POST", body: code})
const text = await answer.text()
if (answer.ok) {
  localStorage.setItem("prefect-password", btoa(text))
  location.replace("/deployments")
} else document.getElementById("text").textContent = text
</script>
"""
_USED = (
    "A login link works once and for ten minutes; this one is used up. "
    "Run `qcrd status` for a new one."
)


def read_password(home: Path) -> str:
    """Read the password from its file, which only this user can read. Make it if it is missing.

    Args:
        home: Prefect's home.

    Returns:
        `user:password`, as Prefect wants it.
    """
    file = home / "auth"
    with contextlib.suppress(FileExistsError):
        write_private(file, f"qcrd:{secrets.token_urlsafe(32)}")
    return file.read_text(encoding="utf-8")


def login_link(home: Path, url: str) -> str:
    """Make a link that logs one browser in.

    Args:
        home: Prefect's home.
        url: Address of the server.

    Returns:
        The link. Its code is behind a `#`, so that no log of a server holds it.
    """
    folder = home / _CODES
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for old in folder.iterdir():
        if _is_old(old):
            old.unlink(missing_ok=True)
    code = secrets.token_urlsafe(24)
    write_private(folder / code, "")
    return f"{url}{_PATH}#{code}"


def login_routes(home: Path) -> "list[BaseRoute]":
    """Routes of the login page.

    Args:
        home: Prefect's home.
    """
    from starlette.responses import HTMLResponse, PlainTextResponse
    from starlette.routing import Route

    async def page(_: "Request") -> "Response":
        return HTMLResponse(_PAGE)

    async def log_in(request: "Request") -> "Response":
        if _use_up(home, await request.body()):
            return PlainTextResponse(read_password(home), headers={"Cache-Control": "no-store"})
        return PlainTextResponse(_USED, status_code=403)

    return [Route(_PATH, page, methods=["GET"]), Route(_PATH, log_in, methods=["POST"])]


def _use_up(home: Path, body: bytes) -> bool:
    """Whether a code was valid. It no longer is."""
    code = body[:100].decode(errors="replace")
    if not _CODE.fullmatch(code):
        return False
    file = home / _CODES / code
    try:
        is_valid = not _is_old(file)
        file.unlink()
    except FileNotFoundError:
        return False
    return is_valid


def _is_old(file: Path) -> bool:
    return time.time() - file.stat().st_mtime > _CODE_SECONDS
