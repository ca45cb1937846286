"""A generation: all samples that were drawn in exactly the same way.

Its fingerprint covers everything that reaches the model, except the question and K. So more
questions or more samples extend a generation, and any other change begins a new one.
`generation.json` in the same folder as the parts holds the same values in readable form, and under
`dialects` what servers did not take of the requests. That is known only after asking, so it is no
part of the fingerprint.
"""

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from qcrd_core.config.files import parse_json, read_ordinary
from qcrd_core.config.run import RunConfig
from qcrd_core.data.prompts import prompt_identity
from qcrd_core.data.spec import DatasetSpec
from qcrd_core.errors import StoreError
from qcrd_core.ids import IDENTITY_VERSION, fingerprint
from qcrd_core.store.store import Store

logger = logging.getLogger(__name__)

TOP_P = 1.0
"""No nucleus: the vote needs the samples of the whole distribution, wrong answers included."""
FILE = "generation.json"
CONDENSES = "condenses"
"""Key of an identity: the generation whose rationales this one holds rewrites of."""
_DIALECTS = "dialects"

_MAX_SHOWN = 60


def generation_identity(
    config: RunConfig, spec: DatasetSpec, identity: Mapping[str, Any]
) -> dict[str, Any]:
    """Collect everything that reaches the model, except the question and the sample's number.

    Args:
        config: The run's configuration.
        spec: The data set, for its prompt.
        identity: The model, from `describe_teacher`.

    Returns:
        A JSON-able mapping. `num_samples` is left out on purpose.
    """
    teacher = config.teacher
    return {
        "schema_version": IDENTITY_VERSION,
        "model": dict(identity),
        "api": teacher.api,
        "prompt": prompt_identity(spec),
        "sampling_temperature": teacher.sampling_temperature,
        "top_p": TOP_P,
        "max_new_tokens": teacher.max_new_tokens,
        "seed": teacher.seed,
        **teacher.added_to_identity(),
    }


def rationales_folder(dataset: str) -> str:
    """Folder of a data set's generations, relative to the store's root."""
    return f"datasets/{dataset}/rationales"


def condensed_folder(dataset: str) -> str:
    """Folder of a data set's generations of rewrites, relative to the store's root."""
    return f"datasets/{dataset}/condensed"


def generation_folder(dataset: str, identity: Mapping[str, Any]) -> str:
    """Folder of one generation, of samples or of rewrites, relative to the store's root."""
    return f"{_siblings(dataset, identity)}/generation={fingerprint(identity)}"


def _siblings(dataset: str, identity: Mapping[str, Any]) -> str:
    """Folder of the generations of the same kind."""
    return condensed_folder(dataset) if CONDENSES in identity else rationales_folder(dataset)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Describe the differences between two identities.

    Args:
        old: The earlier identity.
        new: The present identity.

    Returns:
        `setting old -> new` per difference, sorted; `setting has changed` if the values are long.
    """
    before, after = flatten(old), flatten(new)
    return [
        _changed(name, before.get(name), after.get(name))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def announce_changes(
    store: Store, dataset: str, identity: Mapping[str, Any], of_run: Collection[str] = ()
) -> list[str]:
    """Log how a new generation differs from the most similar one of the data set.

    Args:
        store: The store.
        dataset: The data set's name.
        identity: The new generation.
        of_run: Fingerprints of the run's other teachers, which are meant to differ.

    Returns:
        The differences; empty if the data set has no other generation.
    """
    closest: list[str] = []
    name_of_closest = ""
    siblings = _siblings(dataset, identity)
    own = {f"generation={name}" for name in (fingerprint(identity), *of_run)}
    for name in store.list(siblings):
        path = f"{siblings}/{name}/{FILE}"
        if name in own or not store.exists(path):
            continue
        found = differences(read_identity(store, f"{siblings}/{name}"), identity)
        if not closest or len(found) < len(closest):
            closest, name_of_closest = found, name
    if closest:
        logger.warning(
            "The stored samples of %s (%s) were drawn with other settings; sampling starts again: "
            "%s",
            dataset,
            name_of_closest,
            "; ".join(closest),
        )
    return closest


def read_identity(store: Store, folder: str) -> dict[str, Any]:
    """Read the `generation.json` of a generation's folder.

    Raises:
        StoreError: If the file is absent, or no JSON mapping.
    """
    return _without_dialects(store.read_json(f"{folder}/{FILE}", dict[str, Any]))


def note_dialect(store: Store, folder: str, url: str, differences: Sequence[str]) -> None:
    """Add to a generation's `generation.json` how the requests to a server differ from the usual.

    Args:
        store: The store.
        folder: The generation's folder.
        url: The server.
        differences: From `Dialect.differences`.

    Raises:
        StoreError: If the file cannot be read or written.
    """
    content = store.read_json(f"{folder}/{FILE}", dict[str, Any])
    dialects = {**content.get(_DIALECTS, {}), url: list(differences)}
    store.write_json(f"{folder}/{FILE}", {**content, _DIALECTS: dialects})


def read_local_identity(folder: Path) -> dict[str, Any]:
    """Read the `generation.json` of a folder outside the store.

    Args:
        folder: Holds `generation.json` and parts.

    Returns:
        The identity.

    Raises:
        StoreError: If the file is absent or not a JSON mapping.
    """
    path = folder / FILE
    try:
        content = parse_json(read_ordinary(path), dict[str, Any], f"{path} (teacher.reuse)")
        return _without_dialects(content)
    except OSError as error:
        msg = (
            f"{path} must be readable JSON; got {error.strerror} (teacher.reuse). Set it "
            f"to folders that hold {FILE} and its parts, or remove this folder from it."
        )
        raise StoreError(msg) from error


def _without_dialects(content: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key != _DIALECTS}


def flatten(content: Any, prefix: str = "") -> dict[str, Any]:
    """Turn nested mappings into one with dotted names."""
    if not isinstance(content, Mapping):
        return {prefix: content}
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat.update(flatten(value, f"{prefix}.{key}" if prefix else str(key)))
    return flat


def _changed(name: str, old: Any, new: Any) -> str:
    shown = [json.dumps(value, ensure_ascii=False) for value in (old, new)]
    if any(len(text) > _MAX_SHOWN for text in shown):
        return f"{name} has changed"
    return f"{name} {shown[0]} -> {shown[1]}"
