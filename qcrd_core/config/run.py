"""One typed configuration for file, command line and Prefect form.

`load_config(path, overrides)` reads a YAML file, applies dotted overrides (`teacher.num_samples=4`)
and validates. Later wins: model default, YAML file, overrides. Nothing is read from the
environment, but for a Slurm job's nodes where `training.hosts` says so. No secret belongs here: the
teacher's API keys are read from QCRD_API_KEY, or the variables that `teacher.endpoints` names, when
sampling begins.

Defaults are the paper's values (Wang et al., EMNLP 2025, arXiv 2405.13014) where it gives one;
`docs/papers.md` has the place of each. Models, data set and output place have no default.
"""

from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from qcrd_core.config.base import Section
from qcrd_core.config.endpoints import ENDPOINT_TAGS
from qcrd_core.config.method import (
    EvaluationSection,
    LossSection,
    NegativesSection,
    TrainingSection,
    VotingSection,
)
from qcrd_core.config.models import (
    DiscriminatorSection,
    StudentSection,
    TeacherSection,
)
from qcrd_core.config.operations import BudgetSection, CardSection, PromotionSection
from qcrd_core.errors import ConfigError
from qcrd_core.ids import fingerprint


class RunSection(Section):
    """Name, place and seed of the run."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Name of the run and of the student model it makes."""
    store: str
    """Folder or object-store URL (`s3://bucket/prefix`) for everything the run makes."""
    scratch: Path = Path(".qcrd/scratch")
    """Local folder for logs, prepared teachers and, with an object store, checkpoints."""
    seed: int = Field(default=0, ge=0)
    """Seed of the student and the discriminator: initialisation, data order, students' samples."""
    runner: Literal["local", "ray"] = "local"
    """Where the teacher is sampled, and negatives beside training: in the run's own process, one
    after the other, or in tasks on a Ray cluster (`pip install qcrd[ray]`)."""
    ray_address: str | None = None
    """The cluster: `auto` for that of this machine, `10.0.0.1:6379`, `ray://head:10001`."""
    num_samplers: int = Field(default=1, ge=1)
    """Tasks on Ray that sample the teacher at once, a CPU each."""

    @model_validator(mode="after")
    def _ray_has_an_address(self) -> Self:
        changed = self.changed("ray_address", "num_samplers")
        if self.runner == "local" and changed:
            msg = f"run.{changed[0]} must be left alone where run.runner is local"
            raise ValueError(msg)
        if self.runner == "ray" and self.ray_address is None:
            msg = "run.ray_address must name the cluster where run.runner is ray; got none"
            raise ValueError(msg)
        return self


class DataSection(Section):
    """Which questions, and what counts as their label."""

    dataset: str
    """Name of a shipped data set (word_problems, svamp, cqa, anli, esnli, gsm8k) or path of a
    YAML data-set file of your own."""
    path: Path | None = None
    """Local copy of a hub data set, used instead of the hub."""
    label: Literal["gold", "majority"] = "gold"
    """What the student learns as the answer: the gold answer, or the teacher's majority answer."""
    max_train: int | None = Field(default=None, ge=1)
    """Use only the first so many training questions, in the data set's order."""
    max_validation: int | None = Field(default=None, ge=1)
    """Likewise for validation."""
    max_test: int | None = Field(default=None, ge=1)
    """Likewise for test."""


class RunConfig(Section):
    """Everything one distillation run depends on."""

    run: RunSection
    data: DataSection
    teacher: TeacherSection
    voting: VotingSection = VotingSection()
    negatives: NegativesSection = NegativesSection()
    discriminator: DiscriminatorSection
    student: StudentSection
    loss: LossSection = LossSection()
    training: TrainingSection = TrainingSection()
    evaluation: EvaluationSection = EvaluationSection()
    promotion: PromotionSection = PromotionSection()
    budget: BudgetSection = BudgetSection()
    card: CardSection = CardSection()

    @model_validator(mode="after")
    def _vote_needs_two(self) -> Self:
        if self.teacher.num_samples < 2 and "majority" in self.voting.positives:
            msg = (
                "teacher.num_samples must be at least 2 for a majority vote; got "
                f"{self.teacher.num_samples}. Raise it or set voting.positives=gold"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _ray_samples_running_servers(self) -> Self:
        is_served = self.teacher.endpoints is not None
        if self.run.runner == "ray" and not is_served and self.teacher.model.type != "imported":
            msg = (
                "run.runner must be local where teacher.endpoints is null; got ray: each of its "
                "tasks would start an engine of its own. Name running servers in teacher.endpoints"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _options_of_negatives_have_some(self) -> Self:
        changed = self.loss.changed("neg_select", "neg_loss", "neg_tokens")
        sources = self.negatives.teacher_minority or self.negatives.student
        if changed and not (sources and self.loss.beta):
            reason = "loss.beta is 0" if sources else "negatives.* names no source"
            msg = (
                f"loss.{changed[0]} must be left alone where no negative is learnt from; got "
                f"{getattr(self.loss, changed[0])} while {reason}"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _quantized_weights_are_whole(self) -> Self:
        training, lora = self.training, self.student.lora
        if lora is None or lora.quantize is None:
            return self
        if training.precision != "bfloat16" or training.zero_stage == 3:
            msg = (
                f"student.lora.quantize={lora.quantize} must go with training.precision=bfloat16 "
                f"and training.zero_stage of at most 2; got {training.precision} and "
                f"{training.zero_stage}"
            )
            raise ValueError(msg)
        return self

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
        # Of these the default stands for all values, so that runs named before keep their names.
        content["training"] |= {"num_processes": 1, "zero_stage": 0}
        for section in _OPERATIONS:
            content.pop(section)
        if self.student.lora is None:  # likewise
            content["student"].pop("lora")
        content["data_hash"] = data_hash
        return f"{self.run.name}-{fingerprint(content, length=8)}"


_NOT_IDENTITY = (
    ("run", "store"),
    ("run", "scratch"),
    ("run", "runner"),
    ("run", "ray_address"),
    ("run", "num_samplers"),
    ("teacher", "endpoints"),
    ("teacher", "server"),
    ("teacher", "concurrency"),
    ("teacher", "shards_in_flight"),
    ("teacher", "questions_per_shard"),
    ("teacher", "request_timeout_seconds"),
    ("teacher", "max_retries"),
    ("teacher", "reuse"),
    ("training", "checkpoint_seconds"),
    ("training", "cpu_offload"),
    ("training", "gradient_checkpointing"),
    ("training", "hosts"),
    ("training", "rendezvous_port"),
    ("training", "host_timeout_seconds"),
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
            line a problem: the dotted setting, the rule, the value, the file.
    """
    content = read_yaml(path)
    for override in overrides:
        apply_setting(content, *parse_override(override), "command line")
    return validate_config(content, str(path))


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


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that must hold a mapping.

    Args:
        path: The file.

    Returns:
        Its content.

    Raises:
        ConfigError: If it is absent, unreadable, no YAML, or no mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"{path} must be a readable YAML file; got {error.strerror}. Check the path."
        raise ConfigError(msg) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        detail = " ".join(str(error).split())
        msg = f"{path} must be valid YAML; got {detail}. Mend the file."
        raise ConfigError(msg) from error
    if not isinstance(content, dict):
        msg = f"{path} must hold a mapping of settings; got {type(content).__name__}."
        raise ConfigError(msg)
    return content


def explain(error: ValidationError, where: str) -> str:
    """Put a pydantic error into one sentence a problem.

    Args:
        error: What pydantic raised.
        where: The file or form the settings came from.

    Returns:
        Lines without pydantic's own jargon.
    """
    return "\n".join(_explain_one(item, where) for item in error.errors(include_url=False))


_UNION_TAGS = frozenset(
    {"hub", "folder", "scratch", "gguf_package", "imported", "files", "word_problems"}
    | ENDPOINT_TAGS
)


def _explain_one(item: Any, where: str) -> str:
    # A discriminated union puts its tag into the location; a user knows the setting without it.
    name = ".".join(str(part) for part in item["loc"] if part not in _UNION_TAGS)
    kind, value, context = item["type"], item["input"], item.get("ctx", {})
    if kind == "extra_forbidden":
        return f"{name} is no known setting ({where}). Check its spelling and its section."
    if kind == "missing":
        return f"{name} must be set; it has no default ({where})."
    if kind == "union_tag_not_found":
        return f"{name}.type must be set ({where}). See the documentation for the types there are."
    if kind == "union_tag_invalid":
        return (
            f"{name}.type must be one of {context['expected_tags']}; got {context['tag']!r} "
            f"({where})."
        )
    if kind in {"model_type", "model_attributes_type"}:
        return f"{name} must be a section of settings; got {value!r:.80} ({where})."
    if kind == "value_error":
        message = str(context["error"]).rstrip(".")
        return f"{message} ({where}{', ' + name if name else ''})."
    rule = item["msg"].removeprefix("Input should be ").removeprefix("a ").removeprefix("an ")
    shown = f"{value!r}"[:80]
    return f"{name} must be {rule}; got {shown} ({where})."


def parse_override(override: str) -> tuple[str, Any]:
    """Take a `section.key=value` text apart.

    Args:
        override: The text; its value is read as YAML.

    Returns:
        The dotted name and the value.

    Raises:
        ConfigError: If it has another form.
    """
    name, separator, text = override.partition("=")
    if not separator or not all(name.split(".")):
        msg = (
            f"An override must have the form section.key=value; got {override!r} (command line). "
            "For example teacher.num_samples=4."
        )
        raise ConfigError(msg)
    try:
        return name, yaml.safe_load(text)
    except yaml.YAMLError as error:
        msg = f"{name} must be given a YAML value; got {text!r} (command line)."
        raise ConfigError(msg) from error


def apply_setting(content: dict[str, Any], name: str, value: Any, where: str) -> None:
    """Put a value where its dotted name points.

    Args:
        content: Nested settings; changed.
        name: For example `teacher.num_samples`.
        value: What is put there.
        where: How errors name the source.

    Raises:
        ConfigError: If the name leads through a value.
    """
    *sections, last = name.split(".")
    node = content
    for key in sections:
        child = node.setdefault(key, {})
        if not isinstance(child, dict):
            msg = f"{name} must name a setting below a section; {key} is a value ({where})."
            raise ConfigError(msg)
        node = child
    node[last] = value
