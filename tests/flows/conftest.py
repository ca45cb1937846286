"""The command line within the tests' own process."""

import sys

import pytest

from flows.commands.cli import main
from qcrd_core.teacher.servers.launch import free_port


@pytest.fixture
def qcrd(monkeypatch, capsys):
    """Run the command in this process: (exit code, stdout, stderr)."""
    # No run starts here. Without it each command would start a server that ends with this process.
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{free_port()}/api")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["qcrd", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
        said = capsys.readouterr()
        return code, said.out, said.err

    return run
