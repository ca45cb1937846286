"""What a data set is: where its questions come from, how they read, what an answer is.

    spec = load_spec("svamp")             one of the shipped files in `specs/`
    spec = load_spec("my/questions.yaml") your own

A spec holds no data; `qcrd_core.data.load` reads the questions.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from qcrd_core.config.base import Section
from qcrd_core.config.run import explain, read_yaml
from qcrd_core.data.answers import AnswerSpec
from qcrd_core.data.templates import template_fields
from qcrd_core.errors import ConfigError

_SPECS = Path(__file__).with_name("specs")
_FILE_KEYS = ("train", "validation", "test")


class FilesSource(Section):
    """Your own files: JSON lines, a JSON array, CSV (with a header) or Parquet, by their ending."""

    type: Literal["files"] = "files"
    train: Path
    """Training questions, or all questions when there is no other file. Relative paths start at
    the spec's folder."""
    validation: Path | None = None
    """Validation questions. Null: a share of `train`."""
    test: Path | None = None
    """Test questions. Null: a share of `train`."""
    validation_fraction: float = Field(default=0.1, gt=0, lt=0.5)
    """Share of `train` set apart where no validation file is given, chosen by hash of the question
    id: a question stays in its split when the file grows."""
    test_fraction: float = Field(default=0.2, gt=0, lt=0.5)
    """Likewise for test."""


class HubSource(Section):
    """A data set of the Hugging Face hub, or a local copy of it (`data.path`)."""

    type: Literal["hub"] = "hub"
    repo: str
    """Repository name, for example `openai/gsm8k`."""
    config: str | None = None
    """Configuration of the repository."""
    revision: str | None = None
    """Commit, tag or branch. Null takes the newest."""
    train: tuple[str, ...] = ("train",)
    """Names of the hub's splits that make up train, one after the other."""
    validation: tuple[str, ...] = ()
    """Likewise for validation; empty: `validation_size` questions of train."""
    test: tuple[str, ...] = ()
    """Likewise for test; empty: `test_size` questions of train."""
    validation_size: int | None = Field(default=None, ge=1)
    """Number of questions taken from train, by hash of the question id."""
    test_size: int | None = Field(default=None, ge=1)
    """Likewise for test."""

    @model_validator(mode="after")
    def _splits_are_complete(self) -> Self:
        for split in ("validation", "test"):
            if bool(getattr(self, split)) == (getattr(self, f"{split}_size") is not None):
                msg = f"source must name either {split} or {split}_size; got both or neither"
                raise ValueError(msg)
        return self


class WordProblemsSource(Section):
    """Our own generator of arithmetic word problems (`qcrd_core.data.word_problems`)."""

    type: Literal["word_problems"] = "word_problems"
    seed: int = Field(ge=0)
    """Seed of numbers and words."""
    num_train: int = Field(ge=1)
    """Training questions."""
    num_validation: int = Field(ge=1)
    """Validation questions."""
    num_test: int = Field(ge=1)
    """Test questions."""


Source = Annotated[FilesSource | HubSource | WordProblemsSource, Field(discriminator="type")]


class Columns(Section):
    """Names of the source's columns."""

    question_id: str | None = None
    """Your own ids, distinct over all splits. Null: a hash of question and choices."""
    question: str = "question"
    """The question; not read when there is a `question_template`."""
    gold_answer: str | None = None
    """The right answer. Null, or an empty value in a row: no label."""
    gold_after: str | None = Field(default=None, min_length=1)
    """Text after which the right answer stands in its column (GSM8K: `####`)."""
    gold_names: tuple[str, ...] = ()
    """Names of the answers when the column holds their numbers, from 0."""
    gold_target: str | None = None
    """Text the student learns as the label instead of the answer (SVAMP: the equation)."""
    choices: str | tuple[str, ...] | None = None
    """Choices of the question: one column with a list (in CSV a JSON list), or a column each."""
    template: str | None = None
    """Name of the slice in reports."""


class Demonstration(Section):
    """One worked example for the teacher's prompt."""

    question: str = Field(min_length=1)
    """As the models read questions, choices included."""
    rationale: str = Field(min_length=1)
    """Reasoning in the wording the teacher should take up."""
    answer: str = Field(min_length=1)
    """Its answer."""


class PromptSpec(Section):
    """How the teacher is asked."""

    instruction: str | None = Field(default=None, min_length=1)
    """What to do, before everything else."""
    demonstrations: tuple[Demonstration, ...] = ()
    """Worked examples, before the question."""
    question_template: str = "Question: {question}\nAnswer:"
    """Wording around a question; the completion follows it."""

    @model_validator(mode="after")
    def _template_has_question(self) -> Self:
        if template_fields(self.question_template) != ("question",):
            msg = (
                "prompt.question_template must contain {question} once and no other placeholder; "
                f"got {self.question_template!r}"
            )
            raise ValueError(msg)
        return self


class DatasetSpec(Section):
    """One data set."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Name, and folder below `<store>/datasets`."""
    source: Source
    """Where the questions come from."""
    columns: Columns = Columns()
    """What the source's columns mean. Not used by word_problems."""
    duplicates: Literal["refuse", "first"] = "refuse"
    """Questions whose id stands in the source more than once: refuse the source, or keep the first
    (test before validation before train) and log how many were left out."""
    question_template: str | None = Field(default=None, min_length=1)
    """The question as models read it, with `{column}` for columns of the source and `{choices}`
    for the lettered choices. Null: the question column, and the choices below it if there are."""
    answer: AnswerSpec
    """What an answer is."""
    prompt: PromptSpec = PromptSpec()
    """How the teacher is asked."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.prompt.demonstrations and self.answer.marker is None:
            msg = (
                "answer.marker must be set when there are prompt.demonstrations; got null. It "
                "stands between a demonstration's rationale and its answer"
            )
            raise ValueError(msg)
        if (self.answer.kind == "choice") != (self.columns.choices is not None):
            msg = (
                "columns.choices must be set for answer.kind choice, and only then; got "
                f"{self.columns.choices!r} with kind {self.answer.kind}"
            )
            raise ValueError(msg)
        if self.question_template is not None:
            template_fields(self.question_template)
        return self


def load_spec(dataset: str) -> DatasetSpec:
    """Read a shipped data-set file or the user's own.

    Args:
        dataset: `data.dataset`: a shipped name, or the path of a YAML file (with an ending or a
            `/`). Relative paths in the file start at its folder.

    Returns:
        The validated spec; paths of files are absolute.

    Raises:
        ConfigError: If there is no such file or name, or a setting breaks a rule.
    """
    if dataset in shipped_names():
        path = _SPECS / f"{dataset}.yaml"
    elif "/" in dataset or dataset.endswith((".yaml", ".yml")):
        path = Path(dataset).expanduser().absolute()
    else:
        msg = (
            f"data.dataset must be a shipped data set ({', '.join(shipped_names())}) or the path "
            f"of a YAML file; got {dataset!r}."
        )
        raise ConfigError(msg)
    content = _with_absolute_files(read_yaml(path), path.parent)
    try:
        return DatasetSpec.model_validate(content)
    except ValidationError as error:
        raise ConfigError(explain(error, str(path))) from error


def shipped_names() -> tuple[str, ...]:
    """Names of the data sets that come with qcrd."""
    return tuple(sorted(path.stem for path in _SPECS.glob("*.yaml")))


def _with_absolute_files(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    source = content.get("source")
    if not isinstance(source, dict) or source.get("type") != "files":
        return content
    paths = {
        key: str(folder / Path(value).expanduser())
        for key, value in source.items()
        if key in _FILE_KEYS and isinstance(value, str)
    }
    return {**content, "source": {**source, **paths}}
