"""The plan of a run, made before anything runs, and the run's folder.

plan = plan_run(config)      only reads: data set, stored samples, missing samples
print(describe_plan(plan))   the output of `--dry-run`
begin_run(plan)              writes the run's configuration, questions and environment
"""

import logging
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from platform import platform, python_version
from typing import TYPE_CHECKING

import polars as pl
import yaml

from data_schemas import Curation, Feedback, Questions
from qcrd_core.config.models import ImportedModel
from qcrd_core.config.run import RunConfig
from qcrd_core.data.captured import with_captured
from qcrd_core.data.imported import read_imported
from qcrd_core.data.load import check_validation, load_questions, questions_hash
from qcrd_core.data.spec import DatasetSpec, load_spec
from qcrd_core.errors import ConfigError, DataError
from qcrd_core.ids import content_hash, fingerprint
from qcrd_core.run.context import RunContext
from qcrd_core.run.records import Environment
from qcrd_core.store.store import Store
from qcrd_core.teacher.generation import generation_identity, rationales_folder
from qcrd_core.teacher.plan import SamplingPlan, plan_sampling
from qcrd_core.teacher.prepare import describe_teacher
from qcrd_core.teacher.rendering import render
from qcrd_core.teacher.servers.launch import find_vllm_python
from qcrd_core.vote.curation import marks_hash, read_marks

if TYPE_CHECKING:  # a plan sends no request, and an HTTP client takes half a second to import
    from qcrd_core.teacher.servers.client import Prompt

logger = logging.getLogger(__name__)

_LIBRARIES = (
    "qcrd", "prefect", "torch", "transformers", "deepspeed", "polars", "pyarrow", "tokenizers",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class TeacherPlan:
    """What one teacher of a run still has to do."""

    config: RunConfig
    """The run's configuration with this teacher alone."""
    generation: str
    """Fingerprint of its samples."""
    folder: str
    """Their folder in the store."""
    sampling: SamplingPlan | None
    """Stored and missing samples; None for imported rationales."""
    num_imported: int
    """Imported rationales of the run's questions."""
    first_prompt: "Prompt | None"
    """The first rendered prompt; None for imported rationales."""
    part_of_name: str
    """What the run's name hashes of the teacher's samples."""

    @property
    def num_wanted(self) -> int:
        """Samples that the run counts on."""
        return self.num_imported if self.sampling is None else self.sampling.num_wanted


@dataclass(frozen=True, eq=False)
class RunPlan:
    """What a run will do."""

    context: RunContext
    spec: DatasetSpec
    questions: pl.DataFrame
    """Table `questions`, all splits."""
    teachers: tuple[TeacherPlan, ...]
    """All teachers in their order; most runs have one."""
    marks: pl.DataFrame
    """Table `curation`: marks on the run's rationales."""
    feedback: pl.DataFrame
    """Table `feedback`: the right answer of each captured question that has one."""

    @property
    def run_id(self) -> str:
        """Name of the run's folder."""
        return self.context.paths.run_id

    def split(self, name: str) -> pl.DataFrame:
        """Questions of one split."""
        return self.questions.filter(pl.col("split") == name)

    @property
    def is_complete(self) -> bool:
        """Whether the run already has its result."""
        return self.context.store.exists(self.context.paths.result)


def plan_run(config: RunConfig) -> RunPlan:
    """Plan the run of a configuration. Only reads.

    Args:
        config: The configuration.

    Returns:
        The plan.

    Raises:
        ConfigError: If the data set or the teacher breaks a rule.
        DataError: If questions break a rule, or a stored part is damaged.
        LaunchError: If vLLM is needed but not installed.
        StoreError: If the store's URL is not that of a store.
    """
    spec = load_spec(config.data.dataset)
    questions = load_questions(spec, config.data)
    check_validation(questions, spec)
    _check_explanations(config, spec)
    _check_answers(config, spec)
    store = Store(config.run.store, config.run.scratch)
    feedback: pl.DataFrame = Feedback.create_empty()
    if config.data.captured != "none":
        questions, feedback = with_captured(
            store, spec.name, questions, is_all=config.data.captured == "all"
        )
    train = questions.filter(pl.col("split") == "train")
    teachers = tuple(_plan_teachers(config, spec, store, train))
    _check_several(config, teachers, train)
    marks = pl.concat([read_marks(store, spec.name, each.generation) for each in teachers])
    # New marks lead to a new run. Without marks, their hash is left out, so that runs from before
    # curation existed keep their names.
    identities = [each.part_of_name for each in teachers]
    parts = (questions_hash(questions), *identities, *filter(None, [marks_hash(marks)]))
    context = RunContext.open(config, config.run_id(content_hash(*parts)))
    _check_rewriter(context)
    return RunPlan(context, spec, questions, teachers, marks, feedback)


def _plan_teachers(
    config: RunConfig, spec: DatasetSpec, store: Store, train: pl.DataFrame
) -> Iterator[TeacherPlan]:
    for place, each in enumerate(config.per_teacher):
        try:
            yield _plan_teacher(each, spec, store, train)
        except (ConfigError, DataError) as error:
            if place == 0:
                raise
            # Alone in its configuration, a further teacher is called as the first one is.
            name = f"teacher.others.{place - 1}."
            raise type(error)(str(error).replace("teacher.", name)) from error


def _plan_teacher(
    config: RunConfig, spec: DatasetSpec, store: Store, train: pl.DataFrame
) -> TeacherPlan:
    """Plan the teacher of a configuration that has only this one."""
    teacher, model = config.teacher, config.teacher.model
    if isinstance(model, ImportedModel):
        rows = read_imported(
            store,
            spec.name,
            model.generation,
            questions=train,
            num_samples=teacher.num_samples,
        )
        return TeacherPlan(
            config,
            generation=model.generation,
            folder=f"{rationales_folder(spec.name)}/generation={model.generation}",
            sampling=None,
            num_imported=rows.height,
            first_prompt=None,
            part_of_name=fingerprint({"imported": model.generation, **spec.answer.identity()}),
        )
    identity = generation_identity(config, spec, describe_teacher(model))
    sampling = plan_sampling(store, spec.name, identity, questions=train, teacher=teacher)
    if sampling.shards and teacher.endpoints is None:
        find_vllm_python()
    return TeacherPlan(
        config,
        generation=sampling.fingerprint,
        folder=sampling.folder,
        sampling=sampling,
        num_imported=0,
        first_prompt=render(config, spec, train["question"][0], train["messages"][0]),
        part_of_name=sampling.fingerprint,
    )


def _check_several(
    config: RunConfig, teachers: tuple[TeacherPlan, ...], train: pl.DataFrame
) -> None:
    """Check that no sample would vote twice, and that weights can be measured."""
    names = [each.generation for each in teachers]
    twice = next((place for place, name in enumerate(names) if name in names[:place]), None)
    if twice is not None:
        first = names.index(names[twice])
        other = "teacher" if first == 0 else f"teacher.others.{first - 1}"
        msg = (
            f"teacher.others.{twice - 1} must differ from {other} in what it is asked, or the same "
            f"samples would vote twice; got generation {names[twice]} in both. Give it another "
            f"model, prompt, temperature or seed, or raise {other}.num_samples."
        )
        raise ConfigError(msg)
    if config.voting.weights == "precision" and train["gold_answer"].null_count() == train.height:
        msg = (
            "voting.weights=precision needs training questions with a gold answer; got "
            f"{train.height} without one ({config.data.dataset}). Set voting.weights=agreement."
        )
        raise ConfigError(msg)


def _check_rewriter(context: RunContext) -> None:
    """Check that the model that condenses is there, before the teacher is sampled."""
    teacher = context.config.teacher.rewriter
    is_asked = teacher.condense is not None and not context.store.exists(context.paths.condensed)
    if not is_asked or isinstance(teacher.model, ImportedModel):
        return
    if teacher.endpoints is None:
        find_vllm_python()
    try:
        describe_teacher(teacher.model)
    except ConfigError as error:
        # Only another model can be absent here: the teacher itself has been described.
        msg = str(error).replace("teacher.model.", "teacher.condense.model.")
        raise ConfigError(msg) from error


def begin_run(plan: RunPlan) -> None:
    """Make the run's folder, or continue in the folder of an earlier start of the same run.

    Args:
        plan: From `plan_run`.

    Raises:
        StoreError: If the store cannot be written.
    """
    context, paths = plan.context, plan.context.paths
    context.store.check_writable()
    settings = context.config.model_dump(mode="json")
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    context.store.write_bytes(paths.config, text.encode())
    if context.store.exists(paths.environment):
        logger.info("Continuing run %s | %s", plan.run_id, context.store)
        return
    logger.info("Starting run %s | %s", plan.run_id, context.store)
    context.store.write_json(paths.dataset, plan.spec.model_dump(mode="json"))
    context.store.write_table(paths.questions, plan.questions, Questions)
    if plan.marks.height:
        context.store.write_table(paths.curation, plan.marks, Curation)
    if plan.feedback.height:
        context.store.write_table(paths.feedback, plan.feedback, Feedback)
    # Written last: if it exists, all inputs of the run exist.
    context.store.write_json(paths.environment, _environment(plan))


def _environment(plan: RunPlan) -> Environment:
    first, *others = plan.teachers
    more = {"other_generations": [each.generation for each in others]} if others else {}
    return Environment.model_validate(
        {
            "dataset": plan.spec.name,
            "questions_hash": questions_hash(plan.questions),
            "generation": None if first.sampling is None else first.generation,
            **more,
            "first_prompt": first.first_prompt,
            "python": python_version(),
            "platform": platform(),
            "versions": {name: _version(name) for name in _LIBRARIES},
            "commit": _commit(),
            "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
    )


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Commit of qcrd's source tree; None if it is not a git clone."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _check_answers(config: RunConfig, spec: DatasetSpec) -> None:
    """Check that the settings that apply to some kinds of answers fit the data set's."""
    is_structured = any(teacher.structured_output for teacher in config.teachers)
    if is_structured and spec.answer.json_schema is None:
        msg = (
            "teacher.structured_output needs answers of kind json with an answer.json_schema, "
            f"which the server enforces; got kind {spec.answer.kind} without one ({spec.name}). "
            "Add the schema, or remove the setting."
        )
        raise ConfigError(msg)
    if config.voting.tie == "parts" and spec.answer.kind not in {"labels", "json"}:
        msg = (
            "voting.tie=parts applies only to answers of kind labels or json, which have parts; "
            f"got {spec.answer.kind} ({spec.name}). Set voting.tie=abstain."
        )
        raise ConfigError(msg)


def _check_explanations(config: RunConfig, spec: DatasetSpec) -> None:
    """Check that answers can be read where the run reads them: in the student's, or in rewrites.

    The last number of a rationale is its answer. A label or a choice that it names last need not
    be. A verifier gets the question, and that of a rewrite is another one.
    """
    if spec.answer.verifier is not None and config.teacher.condense is not None:
        msg = (
            "teacher.condense must be null for answers of kind verifier, because their rewrites "
            f"cannot be verified ({spec.name}). Remove it, or raise student.max_target_tokens."
        )
        raise ConfigError(msg)
    readers = {
        "evaluation.infer": config.evaluation.infer != "predict",
        "negatives.verify": config.negatives.verify != "none",
    }
    setting = next((name for name, reads in readers.items() if reads), None)
    if setting and spec.answer.kind != "number" and config.student.explain_target == "rationale":
        msg = (
            f"student.explain_target must be rationale_and_answer if {setting} reads answers of "
            f"kind {spec.answer.kind} from what the student writes; it is rationale "
            f"({spec.name}). Set student.explain_target=rationale_and_answer."
        )
        raise ConfigError(msg)
