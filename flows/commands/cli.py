"""The command `qcrd`.

    qcrd init FILE [--to DIR]
    qcrd run --config configs/quickstart.yaml [section.key=value ...] [--dry-run]
             [--retry-failed]
    qcrd import FILE --store STORE --dataset NAME [--format F | --rationales COLUMN ...]
    qcrd export-sft RUN FILE.jsonl --trainer trl|llama-factory --kind sft|preference
    qcrd join --config FILE [section.key=value ...]
    qcrd predict STUDENT FILE_OR_-
    qcrd serve MODEL [--store STORE]
    qcrd bench --config BENCH.yaml | --recommend RUN.yaml [section.key=value ...] [--dry-run]
    qcrd models, qcrd promote, qcrd rollback, qcrd janitor
    qcrd inspect STORE_OR_RUN [--question ID | --where SQL | --diff A B | --export PATH]
    qcrd validate STORE [--repair], qcrd compact STORE, qcrd explore STORE
    qcrd audit STORE_OR_RUN
    qcrd settings [KEY] [--dataset]
    qcrd plan --config FILE --questions N --gpus G [--gpu-hour-price PRICE]
    qcrd up, qcrd deploy, qcrd status, qcrd down
    qcrd doctor

Exit codes: 0 done, 1 failed (the message says why), 2 wrong setting or command, 130 interrupted.
The last line of output is the next useful command.
"""

import atexit
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable

from cyclopts import App, CycloptsError, Group

from flows.commands.bench import bench
from flows.commands.exchange import export_sft, import_file
from flows.commands.init import init
from flows.commands.inspect import audit, compact, explore, inspect, plan, validate
from flows.commands.models import janitor, models, promote, rollback
from flows.commands.predict import predict
from flows.commands.run import join, run
from flows.commands.serve import serve
from flows.commands.server import deploy, down, status, up
from flows.commands.settings import settings as list_settings
from qcrd_core.errors import ConfigError, QcrdError

app = App(
    name="qcrd",
    help="Distil a large teacher into a small student, and keep every rationale.",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,
)
_MOST_OF_PATH = 80
_RUN, _DATA, _MODELS, _LOOK, _SERVER, _CARE = (
    Group.create_ordered(name)
    for name in ("Run", "Data", "Models", "Look", "Prefect server", "Maintenance")
)
app.register_install_completion_command()
for flag in ("--help", "--version", "--install-completion"):
    app[flag].group = "Help"


@app.command(group=_CARE)
def doctor(*, store: str = ".qcrd/quickstart") -> None:
    """Check this machine: what is installed, and what will work.

    Args:
        store: Folder or URL of the store whose free disk space is checked.
    """
    from qcrd_core.ops.doctor import examine, format_checks

    print(format_checks(examine(store)))


app.command(run, group=_RUN, sort_key=0)
app.command(import_file, name="import", group=_DATA)
app.command(list_settings, name="settings", group=_RUN)
_COMMANDS: dict[Group, tuple[Callable[..., None], ...]] = {
    _RUN: (join, bench, plan),
    _DATA: (init, export_sft),
    _MODELS: (predict, serve, models, promote, rollback),
    _LOOK: (inspect, explore, audit),
    _SERVER: (up, deploy, status, down),
    _CARE: (validate, compact, janitor),
}
for group, commands in _COMMANDS.items():
    for command in commands:
        app.command(command, group=group)


def main() -> None:
    """Run the command line. The module's docstring lists the exit codes."""
    logging.captureWarnings(capture=True)
    # Collecting imported objects at exit would take a third of a second and free nothing useful.
    atexit.register(gc.freeze)
    # Exit normally on SIGTERM, so that exit handlers stop everything this process started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        app(sys.argv[1:], exit_on_error=False)
    except (ConfigError, CycloptsError) as error:
        if isinstance(error, ConfigError):  # cyclopts has printed its own
            print(error, file=sys.stderr)
        sys.exit(2)
    except QcrdError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        # The reader of our output has enough: `qcrd settings | head`. What is left goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        from qcrd_core.runtime.processes import explain_exhausted

        sentence = explain_exhausted("The command", str(error))
        if sentence is None and error.filename is not None:
            path = str(error.filename)
            shown = path if len(path) <= _MOST_OF_PATH else f"{path[:_MOST_OF_PATH]}..."
            sentence = f"{shown!r} cannot be used: {error.strerror}. Check the path and its rights."
        if sentence is None:
            raise
        print(sentence, file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        # Threads still waiting for their last request end later. They must not print below this.
        logging.disable()
        print("Stopped. Finished work is kept; run the same command to continue.", file=sys.stderr)
        sys.exit(130)
