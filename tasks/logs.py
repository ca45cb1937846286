"""What Prefect's logs show of qcrd: our own INFO lines, and no traceback for a user's mistake."""

import logging

from qcrd_core.errors import QcrdError


def show_core_logs() -> None:
    """Let INFO lines of the core through to Prefect's handlers, and explain our errors once.

    PREFECT_LOGGING_EXTRA_LOGGERS forwards a logger but sets no level.
    """
    logging.getLogger("qcrd_core").setLevel(logging.INFO)
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        engine = logging.getLogger(name)
        if not any(isinstance(item, _OneSentence) for item in engine.filters):
            engine.addFilter(_OneSentence())


class _OneSentence(logging.Filter):
    """Replaces the traceback of an error that explains itself by its message."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, QcrdError):
            record.exc_info = None
            record.msg, record.args = "%s", (str(error),)
        return True
