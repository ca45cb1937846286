"""One typed configuration for file, command line and Prefect form.

`load_config(path, overrides)` reads a YAML file, applies dotted overrides (`teacher.num_samples=4`)
and validates. Later wins: model default, YAML file, overrides. Nothing is read from the
environment, except a Slurm job's nodes if `training.hosts` says so. No secret belongs here: the
teacher's API keys are read from QCRD_API_KEY, or the variables that `teacher.endpoints` names, when
sampling begins.

Defaults are the paper's values (Wang et al., EMNLP 2025, arXiv 2405.13014) where it gives one;
`docs/papers.md` has the place of each. Data set, teacher, student and store have no default.
A key that is not a setting is refused, with the nearest one; `qcrd_core.config.history` has the
keys of older releases.
"""

from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, ValidationError, model_validator

from qcrd_core.config.base import MAX_COUNT, MAX_PROCESSES, MAX_SEED, Name, Section
from qcrd_core.config.history import from_store, named_as_before, without_fixed
from qcrd_core.config.known_methods import MethodName, with_method
from qcrd_core.config.method import (
    EvaluationSection,
    LossSection,
    NegativesSection,
    TrainingSection,
    VotingSection,
)
from qcrd_core.config.models import (
    NUM_HEADS,
    DiscriminatorSection,
    FolderModel,
    HubModel,
    ScratchEncoder,
    ScratchWeights,
    StudentSection,
)
from qcrd_core.config.names import check_names
from qcrd_core.config.operations import BudgetSection, CardSection, PromotionSection
from qcrd_core.config.reading import (
    apply_setting,
    explain,
    parse_override,
    parse_yaml,
    read_yaml,
)
from qcrd_core.config.teacher import NEW_IN_IDENTITY, OneTeacher, TeacherSection
from qcrd_core.errors import ConfigError
from qcrd_core.ids import fingerprint


class RunSection(Section):
    """Name, place and seed of the run."""

    expert: ClassVar = frozenset({"scratch", "ray_address", "num_samplers"})

    name: Name = Field(examples=["mine"])
    """Name of the run and of the student model that it makes."""
    store: str = Field(examples=[".qcrd/mine"])
    """Folder or object-store URL (`s3://bucket/prefix`) for everything that the run makes."""
    scratch: Path = Path(".qcrd/scratch")
    """Local folder for logs, prepared teachers and, with an object store, checkpoints."""
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    """Seed of the student and the discriminator: initialisation, data order, students' samples."""
    ray_address: str | None = Field(default=None, examples=["10.0.0.1:6379"])
    """Ray cluster whose tasks sample the teacher, and negatives concurrently with training:
    `10.0.0.1:6379`, `ray://head:10001`, or `auto` for this machine's. Null does both in the run's
    own process. Needs `pip install qcrd[ray]`."""
    num_samplers: int = Field(default=1, ge=1, le=MAX_PROCESSES)
    """Ray tasks that sample the teacher at the same time, one CPU each."""

    @model_validator(mode="after")
    def _samplers_have_a_cluster(self) -> Self:
        if self.changed("num_samplers") and self.ray_address is None:
            msg = "run.num_samplers applies only when run.ray_address names a cluster; it is null"
            raise ValueError(msg)
        return self


class DataSection(Section):
    """Which questions, and what counts as their label."""

    expert: ClassVar = frozenset({"path", "max_validation", "max_test"})
    later = frozenset({"captured"})

    dataset: str = Field(examples=["svamp"])
    """Name of a shipped data set (word_problems, svamp, cqa, anli, esnli, gsm8k) or path of a
    YAML data-set file of your own."""
    path: Path | None = Field(default=None, examples=["copies/svamp"])
    """Local copy of a hub data set, used instead of the hub."""
    label: Literal["gold", "majority"] = "gold"
    """What the student learns as the answer: the gold answer, or the teacher's majority answer."""
    max_train: int | None = Field(default=None, ge=1, le=MAX_COUNT, examples=[1000])
    """How many training questions are used: the first ones in the data set's order. Null: all."""
    max_validation: int | None = Field(default=None, ge=1, le=MAX_COUNT, examples=[200])
    """How many validation questions are used. Null: all."""
    max_test: int | None = Field(default=None, ge=1, le=MAX_COUNT, examples=[200])
    """How many test questions are used. Null: all."""
    captured: Literal["none", "unsure", "all"] = "none"
    """Also train on questions that `qcrd serve --capture` kept in this store until yesterday (UTC),
    beyond `max_train`: all of them, or those that the student did not answer alone or for which a
    right answer was sent (unsure). Their label is that right answer, else the teacher's majority,
    so it needs `data.label=majority`."""

    @model_validator(mode="after")
    def _captured_ones_have_no_gold(self) -> Self:
        if self.captured != "none" and self.label == "gold":
            msg = (
                "data.captured needs data.label=majority, because captured questions have no gold "
                "answer until one is sent; it is gold"
            )
            raise ValueError(msg)
        return self


class RunConfig(Section):
    """Everything one distillation run depends on."""

    run: RunSection
    data: DataSection
    teacher: TeacherSection
    method: MethodName | None = Field(default=None, examples=["rft"])
    """A method by its name in docs/results.md, in place of the settings that make it up, which
    docs/papers.md lists. Null: the settings of all sections as they are."""
    voting: VotingSection = VotingSection()
    negatives: NegativesSection = NegativesSection()
    discriminator: DiscriminatorSection = DiscriminatorSection()
    student: StudentSection
    loss: LossSection = LossSection()
    training: TrainingSection = TrainingSection()
    evaluation: EvaluationSection = EvaluationSection()
    promotion: PromotionSection = PromotionSection()
    budget: BudgetSection = BudgetSection()
    card: CardSection = CardSection()

    @model_validator(mode="before")
    @classmethod
    def _names_are_settings(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        content = without_fixed(content)
        check_names(cls, content, listed_by="qcrd settings")
        return with_method(content)

    @model_validator(mode="after")
    def _vote_needs_two(self) -> Self:
        num_samples = sum(teacher.num_samples for teacher in self.teachers)
        if num_samples < 2 and "majority" in self.voting.positives:
            msg = (
                "teacher.num_samples must be at least 2 for a majority vote; got "
                f"{num_samples}. Raise it, or set voting.positives=gold"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _question_settles_with_one_teacher(self) -> Self:
        if self.teacher.stop_when_settled is None:
            return self
        if self.teacher.is_imported:
            msg = "teacher.stop_when_settled applies only when a teacher is asked; it is imported"
            raise ValueError(msg)
        if self.teacher.others:
            msg = (
                "teacher.stop_when_settled applies only when one teacher is asked, because a vote "
                f"of several settles by all of them; teacher.others has {len(self.teacher.others)}"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _weights_tell_teachers_apart(self) -> Self:
        if self.voting.weights != "equal" and not self.teacher.others:
            msg = (
                "voting.weights applies only when teacher.others has further teachers; it is "
                f"{self.voting.weights}"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _condensed_rationales_fit(self) -> Self:
        condense, limit = self.teacher.condense, self.student.max_target_tokens
        if condense is not None and condense.max_tokens > limit:
            msg = (
                "teacher.condense.max_tokens must be at most student.max_target_tokens, or the "
                f"student leaves rewrites out; got {condense.max_tokens} and {limit}"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _ray_samples_running_servers(self) -> Self:
        local = [one for one in self.teachers if one.endpoints is None and not one.is_imported]
        if self.run.ray_address is not None and local:
            msg = (
                "run.ray_address needs running servers in teacher.endpoints; it is null, and each "
                "task on Ray would start its own vLLM"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _options_of_negatives_have_some(self) -> Self:
        changed = self.loss.changed("neg_select", "neg_loss", "neg_tokens")
        sources = self.negatives.teacher_minority or self.negatives.student
        if changed and not (sources and self.loss.beta):
            reason = "loss.beta is 0" if sources else "negatives.* names no source"
            msg = f"loss.{changed[0]} applies only when the student learns from negatives; {reason}"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _quantized_weights_are_whole(self) -> Self:
        training, lora = self.training, self.student.lora
        if lora is None or lora.quantize is None:
            return self
        if training.precision != "bfloat16" or training.zero_stage == 3:
            msg = (
                f"student.lora.quantize={lora.quantize} needs training.precision=bfloat16 and a "
                f"training.zero_stage of at most 2; they are {training.precision} and "
                f"{training.zero_stage}"
            )
            raise ValueError(msg)
        return self

    @property
    def teachers(self) -> tuple[OneTeacher, ...]:
        """All teachers, the first one first. Its place is how a run tells them apart."""
        return (self.teacher, *self.teacher.others)

    @property
    def per_teacher(self) -> tuple["RunConfig", ...]:
        """This configuration once per teacher, with that teacher alone: what sampling sees."""
        if not self.teacher.others:
            return (self,)
        alone = (self.teacher.model_copy(update={**dict(t), "others": ()}) for t in self.teachers)
        return tuple(self.model_copy(update={"teacher": teacher}) for teacher in alone)

    @property
    def discriminator_model(self) -> HubModel | FolderModel | ScratchEncoder:
        """The discriminator's encoder: the one that is named, or else one like the student."""
        if self.discriminator.model is not None:
            return self.discriminator.model
        student = self.student.model
        if not isinstance(student, ScratchWeights):
            return student
        width = max(student.hidden_size // 2 // NUM_HEADS, NUM_HEADS) * NUM_HEADS
        return ScratchEncoder(hidden_size=width, num_layers=student.num_layers)

    def run_id(self, data_hash: str) -> str:
        """Name, and a hash of the data and of every setting that changes the result.

        Settings that only say where and how fast (store, endpoints, concurrency, shard sizes,
        processes), or what becomes of the student, are left out, so the same command continues its
        own run on another machine, and new questions make a new run.

        Args:
            data_hash: Hash of what the configuration only names: questions, data-set file, teacher.

        Returns:
            Folder name of the run below `<store>/runs`.
        """
        content = self.model_dump(mode="json")
        for section, key in _NOT_IDENTITY:
            content[section].pop(key)
        content["discriminator"]["model"] = self.discriminator_model.model_dump(mode="json")
        content = named_as_before(content)
        # Of these the default stands for all values, so that runs named before keep their names.
        content["training"] |= {"num_processes": 1, "zero_stage": 0}
        for name in (*_OPERATIONS, "method"):  # its settings are here by themselves
            content.pop(name)
        if self.student.lora is None:  # as before there were adapters
            content["student"].pop("lora")
        if self.student.explain_target == "rationale":  # as before there was a choice
            content["student"].pop("explain_target")
        if self.negatives.num_samples == 1:
            content["negatives"].pop("num_samples")
        if not self.evaluation.compare:
            content["evaluation"].pop("compare")
        if self.discriminator.fit == "paper" or not self.loss.reads_quality:
            content["discriminator"].pop("fit")
        for name in ("stop_when_settled", "condense"):  # as before these
            if not self.teacher.changed(name):
                content["teacher"].pop(name)
        content["teacher"].get("condense", {}).pop("endpoints", None)
        sections = (content["teacher"], *content["teacher"].get("others", ()))
        for section, teacher in zip(sections, self.teachers, strict=True):
            for name in _PLACE_OF_TEACHER:
                section.pop(name)
            for name in (*NEW_IN_IDENTITY, "rationale"):  # as before these
                if not teacher.changed(name):
                    section.pop(name)
        content["data_hash"] = data_hash
        return f"{self.run.name}-{fingerprint(content, length=8)}"


_NOT_IDENTITY = (
    ("run", "store"),
    ("run", "scratch"),
    ("run", "ray_address"),
    ("run", "num_samplers"),
    ("training", "checkpoint_seconds"),
    ("training", "cpu_offload"),
    ("training", "gradient_checkpointing"),
    ("training", "hosts"),
    ("training", "host_timeout_seconds"),
)
_PLACE_OF_TEACHER = (
    "endpoints",
    "server",
    "concurrency",
    "shards_in_flight",
    "questions_per_shard",
    "reuse",
    "max_cut_thoughts",
)
_OPERATIONS = ("promotion", "budget", "card")


def load_config(path: Path, overrides: tuple[str, ...] = ()) -> RunConfig:
    """Read a YAML file, apply overrides, validate.

    Args:
        path: The YAML file.
        overrides: `section.key=value` texts; the value is read as YAML.

    Returns:
        The validated, frozen configuration.

    Raises:
        ConfigError: If the file is absent or no YAML mapping, or any setting breaks a rule. One
            line a problem: the dotted setting, the rule, the value, the file or command line.
    """
    content = read_yaml(path)
    given = dict(parse_override(override) for override in overrides)
    for name, value in given.items():
        apply_setting(content, name, value, "command line")
    try:
        return validate_config(content, str(path))
    except ConfigError as error:
        lines = [
            line.replace(f"({path}", "(command line", 1) if line.startswith(tuple(given)) else line
            for line in str(error).splitlines()
        ]
        raise ConfigError("\n".join(lines)) from error


def validate_config(content: dict[str, Any], where: str) -> RunConfig:
    """Validate a mapping as `RunConfig`.

    Args:
        content: Nested settings.
        where: How errors name the source.

    Returns:
        The configuration.

    Raises:
        ConfigError: If any setting breaks a rule.
    """
    try:
        return RunConfig.model_validate(content)
    except ValidationError as error:
        raise ConfigError(explain(error, where)) from error


def read_stored_config(content: bytes | str, where: str) -> RunConfig:
    """Read the config.yaml of a run, also of one that an older release made.

    Args:
        content: The file's content.
        where: How errors name it.

    Returns:
        The run's configuration.

    Raises:
        ConfigError: If it is no YAML mapping, or a setting breaks a rule.
    """
    return validate_config(from_store(parse_yaml(content, where)), where)
