"""A new home gets the database that Prefect made beforehand; one that has its own keeps it."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from alembic.script import ScriptDirectory
from prefect.server.database.alembic_commands import alembic_config
from prefect.server.database.orm_models import AioSqliteORMConfiguration

from flows.server.app import own_hosts, place_database


@pytest.fixture(scope="module")
def new_database(tmp_path_factory):
    """As `make install` makes it, in a shell whose Prefect has a database of its own."""
    folder = tmp_path_factory.mktemp("installed")
    make = "import sys, pathlib, flows.server.app as a; a.make_database(pathlib.Path(sys.argv[1]))"
    named = {"PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{folder}/mine.db"}
    command = [sys.executable, "-c", make, str(folder / "new.db")]
    subprocess.run(command, check=True, env={**os.environ, **named})
    assert [path.name for path in folder.iterdir()] == ["new.db"]
    return folder / "new.db"


def test_new_database_is_at_the_newest_migration_and_whole(new_database):
    migrations = ScriptDirectory.from_config(alembic_config())
    migrations.version_locations = [AioSqliteORMConfiguration().versions_dir]
    (newest,) = migrations.get_heads()
    with closing(sqlite3.connect(new_database)) as database:
        assert database.execute("SELECT version_num FROM alembic_version").fetchall() == [(newest,)]
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("SELECT count(*) FROM flow_run").fetchone() == (0,)


def test_a_home_without_a_database_gets_a_copy(new_database, tmp_path):
    place_database(tmp_path / "home", new_database)
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["prefect.db"]
    assert (tmp_path / "home" / "prefect.db").read_bytes() == new_database.read_bytes()


@pytest.mark.parametrize("name", ["prefect.db", "prefect.db-wal"])
def test_a_home_with_a_database_or_the_log_of_one_keeps_it(name, new_database, tmp_path):
    (tmp_path / name).write_text("mine")
    place_database(tmp_path, new_database)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "mine"}


def test_where_none_was_made_prefect_makes_its_own(tmp_path):
    place_database(tmp_path / "home", tmp_path / "absent.db")
    assert not (tmp_path / "home").exists()


def test_own_hosts_are_this_machines_names_and_those_of_the_origins():
    this = ["127.0.0.1", "localhost"]

    assert own_hosts("https://qcrd.example, http://prefect-server:4200") == [
        *(*this, "qcrd.example", "prefect-server"),
    ]
    assert own_hosts("null") == own_hosts("*") == this
