"""What Prefect's logs show of qcrd: our INFO lines, and no traceback for an explained error."""

import logging

from qcrd_core.errors import QcrdError


def show_core_logs() -> None:
    """Pass INFO lines of the core to Prefect's handlers, and log our errors without a traceback.

    PREFECT_LOGGING_EXTRA_LOGGERS forwards a logger but does not set its level.
    """
    logging.getLogger("qcrd_core").setLevel(logging.INFO)
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        engine = logging.getLogger(name)
        if not any(isinstance(item, _OneSentence) for item in engine.filters):
            engine.addFilter(_OneSentence())


class _OneSentence(logging.Filter):
    """Logs the message of a QcrdError, which explains itself, instead of its traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, QcrdError):
            record.exc_info = None
            record.msg, record.args = "%s", (str(error),)
        return True
