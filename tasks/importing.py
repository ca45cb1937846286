"""Task of the flow `import-rationales`."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from qcrd_core.data import importing
from qcrd_core.data.formats import Format
from qcrd_core.data.spec import load_spec
from qcrd_core.store.store import Store
from tasks.artifacts import import_artifact
from tasks.stage import stage

_SCRATCH = Path(".qcrd/scratch")


@stage("Import file", retries=0)
def import_file(
    file: str,
    *,
    store: str,
    dataset: str,
    columns: importing.ImportColumns,
    form: Format,
    questions: str | None,
    split: Literal["train", "validation", "test"],
    model: str | None,
) -> dict[str, Any]:
    """Import a file of rationales that were written elsewhere.

    Writes: tables `questions` and `rationales`, as a new generation.
    """
    spec = load_spec(dataset)
    done = importing.import_file(
        Store(store, _SCRATCH),
        path=Path(file),
        spec=spec,
        split=split,
        columns=columns,
        model=model,
        form=form,
        asked=None if questions is None else Path(questions),
    )
    import_artifact(spec.name, done)
    return asdict(done)
