"""What the JSON files of a run hold, and whether a complete run has all that others rely on."""

from collections.abc import Iterator
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from qcrd_core.config.base import Fingerprint, Name, Section
from qcrd_core.config.reading import explain, parse_yaml
from qcrd_core.config.run import RunConfig, read_stored_config
from qcrd_core.data.spec import DatasetSpec
from qcrd_core.errors import ConfigError, StoreAwayError, StoreError
from qcrd_core.run.paths import RunPaths
from qcrd_core.store.store import Store


class Message(Section):
    """One message of a chat prompt."""

    role: str
    content: str


class Environment(BaseModel):
    """Content of `environment.json`. Releases may add to it; what they add is kept and shown."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, JsonValue]

    dataset: Name
    """Name of the data set, and of its folder in the store."""
    questions_hash: str | None = None
    """Hash of the questions."""
    generation: Fingerprint | None = None
    """Generation of the teacher's samples; None for imported rationales."""
    other_generations: tuple[Fingerprint, ...] = ()
    """Generations of `teacher.others`, sampled or imported."""
    first_prompt: str | tuple[Message, ...] | None = None
    """The teacher's first prompt as rendered."""
    python: str | None = None
    platform: str | None = None
    versions: dict[str, str | None] = {}
    """Versions of libraries; None if one is absent."""
    commit: str | None = None
    """Commit of qcrd's source tree."""
    started_at: str | None = None
    """When the run began, UTC, ISO 8601."""

    @model_serializer(mode="wrap")
    def _of_one_teacher_as_before(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = serialize(self)
        if not self.other_generations:
            content.pop("other_generations", None)
        return content

    def generations(self, imported: str | None) -> tuple[str, ...]:
        """Generations of all teachers, in their order.

        Args:
            imported: Setting `teacher.model.generation`; None if the first teacher is asked, or
                if its imported rationales do not matter.

        Returns:
            Fingerprints.
        """
        return tuple(filter(None, (imported or self.generation, *self.other_generations)))


class Result(Section):
    """Content of `result.json`, which only a complete run has."""

    round: int = Field(ge=0)
    """The best round, whose student was tested and published."""
    validation_accuracy: float
    """Its accuracy on the validation questions."""
    test: dict[str, float | None]
    """Its numbers on the test questions."""


def read_environment(store: Store, run_id: str) -> Environment | None:
    """What a run recorded when it began; None before that.

    Raises:
        StoreError: If the file is damaged.
    """
    path = RunPaths(run_id).environment
    return store.read_json(path, Environment) if store.exists(path) else None


def read_run_config(store: Store, run_id: str) -> RunConfig:
    """Settings of a run.

    Raises:
        StoreError: If the file is absent.
        ConfigError: If it is damaged, or a setting breaks a rule.
    """
    path = RunPaths(run_id).config
    return read_stored_config(store.read_bytes(path), f"{store}/{path}")


class _Model(BaseModel):
    generation: Fingerprint | None = None


class _OneTeacher(BaseModel):
    model: _Model = _Model()
    num_samples: int | None = Field(default=None, ge=1, le=2**31 - 1)
    api: str = "chat"


class _Teacher(_OneTeacher):
    others: tuple[_OneTeacher, ...] = ()


class _Data(BaseModel):
    dataset: str = ""


class _Settings(BaseModel):
    """What is read of the settings of a run, whatever release wrote them."""

    teacher: _Teacher
    data: _Data = _Data()
    student: dict[str, Any] = {}
    voting: dict[str, Any] = {}
    loss: dict[str, Any] = {}
    training: dict[str, Any] = {}


def read_any_settings(store: Store, run_id: str) -> dict[str, Any]:
    """Settings of a run as stored, whatever release wrote them.

    Returns:
        The settings, of which only what is read of them was checked.

    Raises:
        StoreError: If the file is absent or damaged.
    """
    path = RunPaths(run_id).config
    where = f"{store}/{path}"
    try:
        content = parse_yaml(store.read_bytes(path), where)
        _Settings.model_validate(content)
    except (ConfigError, ValidationError) as error:
        detail = explain(error, where) if isinstance(error, ValidationError) else str(error)
        msg = (
            f"{detail.splitlines()[0]} Delete the run's folder and start the run again; the "
            "teacher's samples are kept."
        )
        raise StoreError(msg) from error
    return content


def record_problems(store: Store, run_id: str) -> Iterator[tuple[str, str]]:
    """Check what every command relies on in a run: its records, and that its tables are there.

    Args:
        store: The store.
        run_id: The run.

    Yields:
        Path and problem. Tables are not opened, and hashes not compared.

    Raises:
        StoreError: If the store does not answer.
    """
    paths = RunPaths(run_id)
    result: Result | None = None
    for path, shape in (
        (paths.environment, Environment),
        (paths.dataset, DatasetSpec),
        (paths.result, Result),
    ):
        # Only a run that has begun has the first two, and only a complete one the last.
        if not store.exists(path):
            continue
        try:
            found = store.read_json(path, shape)
        except StoreAwayError:
            raise
        except StoreError as error:
            yield path, str(error).removeprefix(f"{store}/{path} ").rstrip(".")
        else:
            result = found if isinstance(found, Result) else result
    wanted = [] if not store.exists(paths.environment) else [paths.dataset, paths.questions]
    if store.exists(paths.result):
        wanted += [paths.environment, paths.votes, paths.metrics]
        wanted += [f"{paths.best_student}/DONE"]
    if result is not None:
        wanted += [paths.predictions("test", result.round)]
    for path in dict.fromkeys(wanted):
        if not store.exists(path):
            yield path, "is missing"


def check_records(store: Store, run_id: str) -> None:
    """Refuse a run that lacks what every command relies on.

    Raises:
        StoreError: If it does; names the first problem.
    """
    for path, problem in record_problems(store, run_id):
        msg = f"{store}/{path} {problem}. `qcrd validate` lists all problems of the store."
        raise StoreError(msg)
