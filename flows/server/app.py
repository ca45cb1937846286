"""Prefect's application as the temporary server runs it, and the database of a new Prefect home.

    uvicorn --factory flows.server.app:create_app
    python -m flows.server.app           what `make install` does, once

Prefect makes a new SQLite database by all the migrations it ever had: five seconds of a core. The
second command lets it do so beside the installation, and a home without a database gets a copy.
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

if TYPE_CHECKING:
    from fastapi import FastAPI

NEW_DATABASE = Path(sys.prefix) / f"prefect-{version('prefect')}.db"
_NAME = "prefect.db"


def create_app() -> "FastAPI":
    """Make the application; the process ends at once where settings name another server."""
    # Importing makes many objects and no garbage; looking for it takes a sixth of the start.
    gc.disable()
    # uvicorn would stop only after its start, and a command that runs nothing would wait for it.
    stop = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, PREFECT_API_URL, PREFECT_HOME

    if PREFECT_API_URL.value():
        sys.exit()
    from prefect.server.api import server

    signal.signal(signal.SIGTERM, stop)
    home = PREFECT_HOME.value()
    if str(PREFECT_API_DATABASE_CONNECTION_URL.value()).endswith(f":///{home / _NAME}"):
        place_database(home)
    app = server.create_app()
    gc.enable()
    return app


def place_database(home: Path, new: Path = NEW_DATABASE) -> None:
    """Copy the new database into a home that has none; without one Prefect makes it.

    Args:
        home: Prefect's home.
        new: Database that Prefect has just made.
    """
    # Also none of the log's files: SQLite would play an old one back into the copy.
    if not new.exists() or any(home.glob(f"{_NAME}*")):
        return
    home.mkdir(parents=True, exist_ok=True)
    copy = home / f".new-{os.getpid()}.db"
    # Whole or absent, and never in the place of one that another server has just put there.
    with contextlib.suppress(OSError):
        shutil.copyfile(new, copy)
        os.link(copy, home / _NAME)
    copy.unlink(missing_ok=True)


def make_database(path: Path = NEW_DATABASE) -> None:
    """Let Prefect make a new database.

    Args:
        path: The file, of which there may be one already.
    """
    import asyncio

    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        del os.environ[name]  # it might name a database that is in use
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
