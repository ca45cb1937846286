"""Everything of qcrd that is true without an orchestrator. Never imports Prefect.

The names below are for notebooks and scripts (docs/python.md). Each loads its module when it is
first used, so `import qcrd_core` stays light.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qcrd_core.config.run import load_config
    from qcrd_core.inspect.compare import compare_runs
    from qcrd_core.inspect.view import open_view
    from qcrd_core.serving.source import load_student
    from qcrd_core.stages.describe import describe_plan
    from qcrd_core.stages.plan import plan_run

__all__ = [
    "compare_runs",
    "describe_plan",
    "load_config",
    "load_student",
    "open_view",
    "plan_run",
]

_MODULES = {
    "compare_runs": "qcrd_core.inspect.compare",
    "describe_plan": "qcrd_core.stages.describe",
    "load_config": "qcrd_core.config.run",
    "load_student": "qcrd_core.serving.source",
    "open_view": "qcrd_core.inspect.view",
    "plan_run": "qcrd_core.stages.plan",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
