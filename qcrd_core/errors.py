"""Errors that a user can meet.

    QcrdError
    ├── ConfigError      a setting or a data-set file breaks a rule (also a ValueError)
    ├── DataError        questions, rationales or a table break a rule
    ├── StoreError       the store cannot be read or written
    │   └── StoreAwayError   the store does not answer: try again after a pause
    ├── SamplingError    the teacher cannot be sampled
    ├── TrainingError    training diverged, ran out of memory or left no checkpoint
    └── LaunchError      a child process could not be started, or died

A message about a wrong setting, file or argument has one form:
`<what> must/cannot <rule>; got <value> (<where>). <Remedy>.` A message about an event says what
happened, what was kept and what to do.
The command line prints only the message and exits with 1 (2 for a ConfigError).
"""


class QcrdError(Exception):
    """Base of all errors that qcrd explains to its user."""


class ConfigError(QcrdError, ValueError):
    """A setting or a data-set specification breaks a rule."""


class DataError(QcrdError):
    """Questions, rationales or a stored table break a rule."""


class StoreError(QcrdError):
    """The store cannot be read or written."""


class SamplingError(QcrdError):
    """The teacher cannot be sampled."""


class TrainingError(QcrdError):
    """Training diverged, ran out of memory or left no checkpoint."""


class LaunchError(QcrdError):
    """A child process could not be started, or died; the message ends with its last log lines."""


class StoreAwayError(StoreError):
    """The store does not answer or is overloaded; the same call may succeed after a pause."""
