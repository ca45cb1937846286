"""A PostgreSQL server of its own on the loopback, for as long as a block runs.

Prefect's server reaches it by the variables that docker-compose.yml sets.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from qcrd_core.teacher.servers.launch import free_port

USER = PASSWORD = DATABASE = "prefect"


def find_postgres() -> Path | None:
    """Folder of `initdb` and `pg_ctl`: on the PATH, or where Debian puts them."""
    found = shutil.which("pg_ctl")
    if found:
        return Path(found).resolve().parent
    return next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


@dataclass(frozen=True)
class Postgres:
    """A running server."""

    programs: Path
    folder: Path
    port: int

    @property
    def environment(self) -> dict[str, str]:
        """What Prefect's server needs to reach it."""
        name = "PREFECT_SERVER_DATABASE"
        return {
            f"{name}_DRIVER": "postgresql+asyncpg",
            f"{name}_HOST": "127.0.0.1",
            f"{name}_PORT": str(self.port),
            f"{name}_USER": USER,
            f"{name}_NAME": DATABASE,
            f"{name}_PASSWORD": PASSWORD,
        }

    def run(self, program: str, *arguments: str) -> None:
        """Run one of its programs; not as root, which it refuses."""
        owner = {"user": "nobody", "group": "nogroup"} if os.geteuid() == 0 else {}
        subprocess.run(
            [str(self.programs / program), *arguments],
            check=True,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PGPASSWORD": PASSWORD},
            extra_groups=[] if owner else None,
            **owner,  # type: ignore[arg-type]
        )

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = f"-p {self.port} -h 127.0.0.1 -k {self.folder}"
        self._control("-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop it; `immediate` is a crash."""
        self._control("-m", mode, "stop")

    def restart(self) -> None:
        """Crash it and start it again."""
        self.stop("immediate")
        self.start()

    def _control(self, *arguments: str) -> None:
        self.run("pg_ctl", "-D", str(self.folder / "data"), "-w", *arguments)


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Run a server with an empty database; its programs must be there."""
    programs = find_postgres()
    assert programs is not None
    # Not below pytest's folders: those are closed to the user it runs as.
    with tempfile.TemporaryDirectory(prefix="qcrd-postgres-") as name:
        server = Postgres(programs, Path(name), free_port())
        if os.geteuid() == 0:
            os.chown(name, pwd.getpwnam("nobody").pw_uid, -1)
        secret = server.folder / "password"
        secret.write_text(PASSWORD)
        server.run(
            "initdb", "-D", str(server.folder / "data"), "-U", USER, "-A", "scram-sha-256",
            f"--pwfile={secret}", "-E", "UTF8", "--locale=C", "-N",
        )  # fmt: skip
        server.start()
        try:
            command = ("-h", "127.0.0.1", "-p", str(server.port), "-U", USER, DATABASE)
            server.run("createdb", *command)
            yield server
        finally:
            server.stop()
