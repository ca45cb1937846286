"""Metadata of a student: `qcrd.json`, in the same folder as the weights.

It holds everything needed to ask the student a question and to read its answer, so the folder can
be copied and used without the run, the store or the data set's file.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field

from qcrd_core.config.base import MAX_TOKENS, Name, Section
from qcrd_core.config.files import parse_json, read_ordinary
from qcrd_core.config.method import Infer
from qcrd_core.config.models import StudentSection
from qcrd_core.data.answers import AnswerSpec
from qcrd_core.data.spec import ChatSource, Columns, DatasetSpec, FilesSource
from qcrd_core.errors import ConfigError
from qcrd_core.run.context import RunContext
from qcrd_core.student.confidence import Calibration

FILE = "qcrd.json"
EXPLAIN_PREFIX = "explain: "
"""Before the question when the rationale is asked for, as in Distilling Step-by-Step."""
# The teacher's default: votes of a student and of its teacher compare.
_VOTE_TEMPERATURE = 0.7


class StudentMetadata(Section):
    """Content of `qcrd.json`."""

    run_id: Name
    """Run that trained the student."""
    round: int = Field(ge=0)
    """Round after which it was saved."""
    dataset: Name
    """Name of the data set."""
    predict_prefix: str
    """Text before the question to ask for the label."""
    explain_prefix: str
    """Text before the question to ask for the rationale."""
    max_input_tokens: int = Field(ge=1)
    """Longest question with its prefix in training."""
    max_new_tokens: int = Field(ge=1, le=MAX_TOKENS)
    """Longest answer in evaluation."""
    infer: Infer = "predict"
    """Kind of inference; see `qcrd_core.student.inference`."""
    num_votes: int = Field(default=1, ge=1, le=1000)
    """Rationales per question, with vote_k."""
    sampling_temperature: float | None = Field(default=None, gt=0, le=100)
    """Temperature of those rationales; null is greedy."""
    max_rationale_tokens: int = Field(default=256, ge=1, le=MAX_TOKENS)
    """Longest rationale in training."""
    seed: int = 0
    """Seed of the run, from which its rationales are sampled."""
    columns: Columns
    """Columns of a file of questions."""
    source: Literal["files", "chat"] = "files"
    """What a file of questions holds: columns, or conversations."""
    question_template: str | None
    """The question as models read it, made of the columns."""
    answer: AnswerSpec
    """Form of answers."""
    calibration: Calibration | None = None
    """How sure an answer is; null if the validation answers were too few."""

    @classmethod
    def of(cls, context: RunContext, round_: int, infer: Infer | None = None) -> "StudentMetadata":
        """Describe a run's student after a round; `infer` replaces the run's kind of inference."""
        spec, student = context.read_spec(), context.config.student
        evaluation = context.config.evaluation
        infer = infer or evaluation.infer
        is_vote = infer == "vote_k"
        longest = evaluation.max_new_tokens
        if student.target == "rationale_and_label":
            longest = student.max_target_tokens
        return cls(
            run_id=context.paths.run_id,
            round=round_,
            dataset=spec.name,
            predict_prefix=student.predict_prefix,
            explain_prefix=EXPLAIN_PREFIX,
            max_input_tokens=student.max_input_tokens,
            max_new_tokens=longest,
            infer=infer,
            num_votes=evaluation.texts_per_question(infer),
            sampling_temperature=_VOTE_TEMPERATURE if is_vote else None,
            max_rationale_tokens=student.max_target_tokens,
            seed=context.config.run.seed,
            columns=spec.columns,
            source="chat" if spec.is_chat else "files",
            question_template=spec.question_template,
            answer=written_answers(spec.answer, student),
        )

    def spec_for(self, path: Path, present: set[str]) -> DatasetSpec:
        """The data set's specification, for another file of questions.

        Args:
            path: The file.
            present: Its columns. Labels, ids and slices are read if it has them.

        Returns:
            A specification whose source is the file.
        """
        optional = ("question_id", "gold_answer", "gold_target", "template")
        absent = {name: None for name in optional if getattr(self.columns, name) not in present}
        return DatasetSpec(
            name=self.dataset,
            source=(ChatSource if self.source == "chat" else FilesSource)(train=path),
            columns=self.columns.model_copy(update=absent),
            question_template=self.question_template,
            answer=self.answer,
        )


def written_answers(answer: AnswerSpec, student: StudentSection) -> AnswerSpec:
    """The form of answers in what a student writes.

    Args:
        answer: The data set's answers.
        student: Section `student`.

    Returns:
        The same; with a marker if the student learns to write one between rationale and answer.
    """
    if student.target == "label" and student.explain_target == "rationale":
        return answer
    return answer.model_copy(update={"marker": answer.marked})


def write_calibration(folder: Path, calibration: Calibration) -> None:
    """Add the calibration of its confidences to a student folder that is not published yet."""
    metadata = read_metadata(folder).model_copy(update={"calibration": calibration})
    (folder / FILE).write_text(metadata.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_metadata(folder: Path) -> StudentMetadata:
    """Read a student folder's `qcrd.json`.

    Args:
        folder: The student.

    Returns:
        Its metadata.

    Raises:
        ConfigError: If the file is absent.
        StoreError: If it is damaged.
    """
    path = folder / FILE
    try:
        return parse_json(read_ordinary(path), StudentMetadata, str(path))
    except OSError as error:
        msg = (
            f"A student must be a folder that a run has written, with {FILE} in it; got {folder} "
            f"({error.strerror}). A run's best student is `<store>/runs/<run id>/student`."
        )
        raise ConfigError(msg) from error
