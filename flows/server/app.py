"""Prefect's application as our servers run it, and the database of a new Prefect home.

    uvicorn --factory flows.server.app:create_prefect_app                  the server of `qcrd up`
    uvicorn --factory flows.server.app:create_shared_prefect_app           docker-compose.yml's
    uvicorn --factory flows.server.app:create_temporary_prefect_app        that of one `qcrd run`
    python -m flows.server.app           run once by `make install`

They answer only if the request names this machine as its host, or a host of the origins that
PREFECT_SERVER_CORS_ALLOWED_ORIGINS lists, so that no page of a browser can reach them under a name
that it controls. The password is Prefect's own (`login`).

Prefect creates a SQLite database by applying every migration it ever had, which takes five seconds
of one core. The last command does this once, in the Python environment; each new Prefect home
then gets a copy.
"""

import contextlib
import gc
import os
import shutil
import signal
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flows.server.busy import WriteInTurn
from flows.server.login import login_routes

if TYPE_CHECKING:
    from starlette.types import ASGIApp

NEW_DATABASE = Path(sys.prefix) / f"prefect-{version('prefect')}.db"
_NAME = "prefect.db"


def create_prefect_app() -> "ASGIApp":
    """Create the application, with a page that logs a browser in."""
    return _create(has_login=True)


def create_shared_prefect_app() -> "ASGIApp":
    """Create the application of a server whose users know its password."""
    return _create()


def create_temporary_prefect_app() -> "ASGIApp":
    """Create the application. If settings name another server, the process exits at once."""
    return _create(is_temporary=True)


def _create(*, is_temporary: bool = False, has_login: bool = False) -> "ASGIApp":
    # Importing creates many objects and no garbage. Collecting takes a sixth of the start-up time.
    gc.disable()
    # uvicorn handles SIGTERM only after it has started, and `qcrd` would have to wait for that.
    stop = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    from prefect.settings import (
        PREFECT_API_DATABASE_CONNECTION_URL,
        PREFECT_API_URL,
        PREFECT_HOME,
        PREFECT_SERVER_CORS_ALLOWED_ORIGINS,
    )

    if is_temporary and PREFECT_API_URL.value():
        sys.exit()
    from prefect.server.api import server
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    signal.signal(signal.SIGTERM, stop)
    home = PREFECT_HOME.value()
    database = str(PREFECT_API_DATABASE_CONNECTION_URL.value())
    if database.endswith(f":///{home / _NAME}"):
        place_database(home)
    prefect = server.create_app(final=True)
    if has_login:
        # Before Prefect's own routes, of which the last takes every path.
        prefect.router.routes[:0] = login_routes(home)
    # Around the application, not in it: Prefect's automations call the application itself and name
    # another host.
    app = WriteInTurn(prefect) if database.startswith("sqlite") else prefect
    hosts = own_hosts(PREFECT_SERVER_CORS_ALLOWED_ORIGINS.value())
    gc.enable()
    return TrustedHostMiddleware(app, allowed_hosts=hosts)


def own_hosts(origins: str) -> list[str]:
    """Names by which a server may be addressed.

    Args:
        origins: Its origins, separated by commas.

    Returns:
        Names of this machine and the hosts of the origins.
    """
    named = (urlsplit(origin.strip()).hostname for origin in origins.split(","))
    return ["127.0.0.1", "localhost", *filter(None, named)]


def place_database(home: Path, new: Path = NEW_DATABASE) -> None:
    """Copy the new database into a home that has none. If `new` is absent, Prefect creates one.

    Args:
        home: Prefect's home.
        new: A database fresh from Prefect's migrations.
    """
    # Log files must be absent too: SQLite would replay an old log into the copy.
    if not new.exists() or any(home.glob(f"{_NAME}*")):
        return
    home.mkdir(parents=True, exist_ok=True)
    copy = home / f".new-{os.getpid()}.db"
    # A hard link is atomic and never replaces a database that another server has just placed.
    with contextlib.suppress(OSError):
        shutil.copyfile(new, copy)
        os.link(copy, home / _NAME)
    copy.unlink(missing_ok=True)


def make_database(path: Path = NEW_DATABASE) -> None:
    """Let Prefect create a new database.

    Args:
        path: Where to write it. An existing file is replaced.
    """
    import asyncio

    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        del os.environ[name]  # a setting might name a database that is in use
    with tempfile.TemporaryDirectory(prefix="qcrd-prefect-", dir=path.parent) as home:
        url = f"sqlite+aiosqlite:///{home}/{_NAME}"
        os.environ |= {"PREFECT_HOME": home, "PREFECT_SERVER_DATABASE_CONNECTION_URL": url}
        from prefect.server.database import provide_database_interface

        async def migrate() -> None:
            database = provide_database_interface()
            await database.create_db()
            await (await database.engine()).dispose()

        asyncio.run(migrate())
        Path(home, _NAME).replace(path)


if __name__ == "__main__":
    make_database()
