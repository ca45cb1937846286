"""What a data set is: where its questions come from, how they read, what an answer is.

    spec = load_spec("svamp")             one of the shipped files in `specs/`
    spec = load_spec("my/questions.yaml") your own

A spec holds no data; `qcrd_core.data.load` reads the questions.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from qcrd_core.config.base import MAX_COUNT, MAX_SEED, Name, Section
from qcrd_core.config.files import expand_user
from qcrd_core.config.names import check_names
from qcrd_core.config.reading import explain, read_yaml
from qcrd_core.data.answers import AnswerSpec
from qcrd_core.data.templates import template_fields
from qcrd_core.errors import ConfigError

_SPECS = Path(__file__).with_name("specs")
_FILE_KEYS = ("train", "validation", "test")

Files = Path | Annotated[tuple[Path, ...], Field(min_length=1)]
"""A file; a pattern such as `train_*.jsonl` or a folder, for all that are in it; or a list of
these."""


class FilesSource(Section):
    """Your own files: JSON lines, a JSON array, CSV, TSV or Parquet, also packed (.gz, .zst)."""

    type: Literal["files"] = "files"
    """Where the questions come from: your files, the Hugging Face hub, or qcrd's own generator."""
    train: Files = Field(examples=["questions.jsonl"])
    """Training questions: a file, a pattern (`train_*.jsonl`), a folder of files or a list of
    these; or names of the hub's splits. They are joined in this order. If no other split is set, it
    holds all questions. Relative paths start at the YAML file's folder."""
    validation: Files | None = Field(default=None, examples=["validation.jsonl"])
    """Validation questions: files, or names of the hub's splits. Not set: a part of `train`."""
    test: Files | None = Field(default=None, examples=["test.jsonl"])
    """Test questions: files, or names of the hub's splits. Not set: a part of `train`."""
    validation_fraction: float = Field(default=0.1, gt=0, lt=0.5)
    """Fraction of `train` that becomes validation if there is no validation file. It is chosen by
    hash of the question id, so that a question stays in its split when the file grows."""
    test_fraction: float = Field(default=0.2, gt=0, lt=0.5)
    """Fraction of `train` that becomes test if there is no test file, chosen in the same way."""


class ChatSource(FilesSource):
    """Your own files of conversations: OpenAI's `messages` or ShareGPT's `conversations`.

    The last turn of the assistant is the gold answer; the turns before it are the question.
    """

    type: Literal["chat"] = "chat"  # type: ignore[assignment]
    """Where the questions come from."""


class HubSource(Section):
    """A data set of the Hugging Face hub, or a local copy of it (`data.path`)."""

    type: Literal["hub"] = "hub"
    """Where the questions come from."""
    repo: str = Field(examples=["openai/gsm8k"])
    """Repository name on the hub."""
    config: str | None = Field(default=None, examples=["main"])
    """Configuration of the repository."""
    revision: str | None = Field(default=None, examples=["main"])
    """Commit, tag or branch of the repository. Null takes the newest."""
    train: tuple[str, ...] = ("train",)
    """Names of the hub's splits that make up train, in this order."""
    validation: tuple[str, ...] = ()
    """Names of the hub's splits that make up validation. Empty: `validation_size` questions of
    train."""
    test: tuple[str, ...] = ()
    """Names of the hub's splits that make up test. Empty: `test_size` questions of train."""
    validation_size: int | None = Field(default=None, ge=1, le=MAX_COUNT, examples=[500])
    """Number of train questions that become validation, chosen by hash of the question id."""
    test_size: int | None = Field(default=None, ge=1, le=MAX_COUNT, examples=[500])
    """Number of train questions that become test, chosen by hash of the question id."""

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
    """Where the questions come from."""
    seed: int = Field(ge=0, le=MAX_SEED, examples=[0])
    """Seed of the generator's numbers and words."""
    num_train: int = Field(ge=1, le=MAX_COUNT, examples=[1000])
    """Training questions to generate."""
    num_validation: int = Field(ge=1, le=MAX_COUNT, examples=[200])
    """Validation questions to generate."""
    num_test: int = Field(ge=1, le=MAX_COUNT, examples=[400])
    """Test questions to generate."""


Source = Annotated[
    FilesSource | ChatSource | HubSource | WordProblemsSource, Field(discriminator="type")
]


class Columns(Section):
    """Names of the source's columns. `a.b` is field `b` of column `a`, and `a.0` its first item."""

    later = frozenset({"gold_index"})

    question_id: str | None = Field(default=None, examples=["id"])
    """Column of your own ids, distinct over all splits. Null: ids are a hash of question and
    choices."""
    question: str = Field(default="question", examples=["text"])
    """Column of the question. It is not read if there is a `question_template`."""
    gold_answer: str | None = Field(default=None, examples=["answer"])
    """Column of the right answer. Null, or an empty value in a row: the question has no label."""
    gold_after: str | None = Field(default=None, min_length=1, examples=["####"])
    """Text in the column `gold_answer` after which the answer begins."""
    gold_names: tuple[str, ...] = Field(default=(), examples=[["yes", "no"]])
    """Names of the answers if the column `gold_answer` holds their numbers, from 0."""
    gold_index: Literal[0, 1] | None = Field(default=None, examples=[0])
    """For kind choice: the column `gold_answer` holds the number of the right choice, counted from
    0 or from 1. Null: it holds the choice's text or letter, or an integer counted from 0."""
    gold_target: str | None = Field(default=None, examples=["equation"])
    """Column of a text that the student learns as the label instead of the answer."""
    choices: str | tuple[str, ...] | None = Field(default=None, examples=["choices"])
    """Choices of the question: one column with a list (in CSV a JSON list), or with texts and
    letters (`{text: [...], label: [...]}`); or one column per choice."""
    template: str | None = Field(default=None, examples=["template"])
    """Column that names the slice of a question in reports."""


class Demonstration(Section):
    """One worked example for the teacher's prompt."""

    question: str = Field(min_length=1, examples=["What is 2 + 3?"])
    """Question of a worked example, as the models read questions, choices included."""
    rationale: str = Field(min_length=1, examples=["2 + 3 = 5."])
    """Rationale of a worked example, in the wording that the teacher should use."""
    answer: str = Field(min_length=1, examples=["5"])
    """Answer of a worked example."""


class PromptSpec(Section):
    """How the teacher is asked."""

    instruction: str | None = Field(default=None, min_length=1, examples=["Solve the problem."])
    """What the teacher is told to do, before everything else."""
    demonstrations: tuple[Demonstration, ...] = ()
    """Worked examples, before the question."""
    question_template: str = "Question: {question}\nAnswer:"
    """Text around a question in the prompt. The completion follows it."""

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

    name: Name = Field(examples=["mine"])
    """Name of the data set, and of its folder below `<store>/datasets`."""
    source: Source
    """Where the questions come from."""
    columns: Columns = Columns()
    """What the source's columns mean. Not used by word_problems."""
    duplicates: Literal["refuse", "first"] = "refuse"
    """What happens if a question id occurs more than once: the source is refused; or the first is
    kept (test before validation before train) and the log says how many were left out."""
    question_template: str | None = Field(
        default=None, min_length=1, examples=["{passage}\n{question}"]
    )
    """The question as models read it, with `{column}` for columns of the source and `{choices}`
    for the lettered choices. Null: the question column, then the choices if there are any."""
    answer: AnswerSpec
    """What an answer is."""
    prompt: PromptSpec = PromptSpec()
    """How the teacher is asked."""

    @model_validator(mode="before")
    @classmethod
    def _names_are_settings(cls, content: Any) -> Any:
        if isinstance(content, dict):
            check_names(cls, content, listed_by="qcrd settings --dataset")
        return content

    @property
    def is_chat(self) -> bool:
        """Whether questions are conversations."""
        return isinstance(self.source, ChatSource)

    @model_validator(mode="after")
    def _chats_have_no_columns_of_questions(self) -> Self:
        names = self.columns.changed("question", "gold_answer", "choices")
        if self.is_chat and (names or self.question_template is not None):
            what = f"columns.{names[0]}" if names else "question_template"
            msg = (
                f"{what} must not be set for source.type chat: question and answer are the turns "
                "of a conversation"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.prompt.demonstrations and self.answer.marker is None:
            msg = (
                "answer.marker must be set if there are prompt.demonstrations; got null. It "
                "separates a demonstration's rationale from its answer"
            )
            raise ValueError(msg)
        if (self.answer.kind == "choice") != (self.columns.choices is not None):
            msg = (
                "columns.choices must be set for answer.kind choice, and only then; got "
                f"{self.columns.choices!r} with kind {self.answer.kind}"
            )
            raise ValueError(msg)
        if self.columns.gold_index is not None and self.answer.kind != "choice":
            msg = (
                "columns.gold_index applies only to answer.kind choice; got kind "
                f"{self.answer.kind}"
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
        The validated spec; paths of files are absolute, and a verifier's module is found.

    Raises:
        ConfigError: If there is no such file or name, a setting breaks a rule, or a verifier cannot
            be imported.
    """
    if dataset in shipped_names():
        path = _SPECS / f"{dataset}.yaml"
    elif "/" in dataset or dataset.endswith((".yaml", ".yml")):
        path = expand_user(dataset).absolute()
    else:
        msg = (
            f"data.dataset must be a shipped data set ({', '.join(shipped_names())}) or the path "
            f"of a YAML file; got {dataset!r}."
        )
        raise ConfigError(msg)
    content = _with_absolute_files(read_yaml(path), path.parent)
    try:
        return _with_verifier(DatasetSpec.model_validate(content), path.parent)
    except ValidationError as error:
        raise ConfigError(explain(error, str(path))) from error


def _with_verifier(spec: DatasetSpec, folder: Path) -> DatasetSpec:
    if spec.answer.verifier is None:
        return spec
    answer = spec.answer.model_copy(update={"verifier": spec.answer.verifier.resolved(folder)})
    return spec.model_copy(update={"answer": answer})


def shipped_names() -> tuple[str, ...]:
    """Names of the data sets that come with qcrd."""
    return tuple(sorted(path.stem for path in _SPECS.glob("*.yaml")))


def _with_absolute_files(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    source = content.get("source")
    if not isinstance(source, dict) or source.get("type") not in {"files", "chat"}:
        return content
    paths = {key: _absolute(value, folder) for key, value in source.items() if key in _FILE_KEYS}
    return {**content, "source": {**source, **paths}}


def _absolute(value: Any, folder: Path) -> Any:
    if isinstance(value, list):
        return [_absolute(item, folder) for item in value]
    return str(folder / expand_user(value)) if isinstance(value, str) else value
