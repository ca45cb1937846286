"""What a bench compares: a file of `configs/bench_*.yaml`.

    bench = load_bench(Path("configs/bench_word_problems.yaml"))
    for cell in bench.cells(): cell.config      a whole RunConfig

A cell is a run like any other: base configuration, then the bench's settings, then its method's.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from qcrd_core.config.base import MAX_SEED, Section
from qcrd_core.config.known_methods import METHODS
from qcrd_core.config.reading import apply_setting, explain, parse_override, read_yaml
from qcrd_core.config.run import RunConfig, validate_config
from qcrd_core.errors import ConfigError


class Variant(Section):
    """A method that the file itself defines."""

    description: str
    """One line for tables."""
    settings: dict[str, Any] = Field(min_length=1)
    """Dotted settings on top of the bench's."""


class BenchConfig(Section):
    """Methods, seeds and shares of the data, on one base configuration."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=60)
    """Name of the bench; each run's name is it and the method's."""
    base: dict[str, Any]
    """Settings of a run, before the method's. In a file: `run`, the path of a run's file, and
    `settings`, dotted settings on top of it."""
    methods: tuple[str, ...] = Field(min_length=1)
    """Names of `qcrd_core.config.known_methods` and of `variants`, in the order of the tables."""
    variants: dict[str, Variant] = Field(default={})
    """Methods that the file itself defines, by name."""
    seeds: tuple[Annotated[int, Field(ge=0, le=MAX_SEED)], ...] = Field(
        default=(0, 1, 2, 3, 4), min_length=1
    )
    """`run.seed` of the runs of each method."""
    shares: tuple[float, ...] = ()
    """Shares of the training questions below 1 that `share_methods` are measured on too."""
    share_methods: tuple[str, ...] = ()
    """Methods measured on `shares`."""
    references: tuple[str, ...] = ("dss_sc", "qcrd")
    """Methods that every other is compared with."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Level of all intervals."""
    notes: str = ""
    """What its makers read out of the tables, Markdown, for the document."""

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        for name in self.methods:
            if name not in METHODS and name not in self.variants:
                known = ", ".join([*METHODS, *self.variants])
                msg = f"methods must name known ones ({known}); got {name}"
                raise ValueError(msg)
        for field in ("share_methods", "references"):
            absent = [name for name in getattr(self, field) if name not in self.methods]
            if absent:
                msg = f"{field} must be among methods; got {absent[0]}"
                raise ValueError(msg)
        taken = [name for name in self.variants if name in METHODS]
        if taken:
            msg = f"variants must have new names; {taken[0]} is already a method"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _nothing_twice(self) -> Self:
        for field in ("methods", "seeds", "shares", "share_methods", "references"):
            values = getattr(self, field)
            if len(set(values)) != len(values):
                msg = f"{field} must not repeat a value; got {list(values)}"
                raise ValueError(msg)
        if not all(0 < share < 1 for share in self.shares):
            msg = f"shares must lie between 0 and 1; got {list(self.shares)}"
            raise ValueError(msg)
        return self

    def description(self, method: str) -> str:
        """One line on a method."""
        known = self.variants.get(method) or METHODS[method]
        return known.description

    def settings(self, method: str) -> dict[str, Any]:
        """What a method sets, dotted."""
        known = self.variants.get(method) or METHODS[method]
        return dict(known.settings)

    def cells(self, num_train: int) -> Iterator["Cell"]:
        """All cells, a seed after the other, so that a stopped bench has whole seeds.

        Args:
            num_train: Training questions of the base configuration; a share is taken of them.

        Yields:
            Cells.

        Raises:
            ConfigError: If a method's settings do not go with the base.
        """
        for seed in self.seeds:
            for method in self.methods:
                for share in (1.0, *(self.shares if method in self.share_methods else ())):
                    limit = None if share == 1 else max(1, round(share * num_train))
                    config = self.run_config(method, seed, limit)
                    yield Cell(method, share, seed, config)

    def run_config(self, method: str, seed: int, num_train: int | None = None) -> RunConfig:
        """Configuration of one cell.

        Args:
            method: One of `methods`.
            seed: One of `seeds`.
            num_train: Training questions, the first ones; None is all.

        Returns:
            The run's configuration.

        Raises:
            ConfigError: If the settings do not go together.
        """
        where = f"bench {self.name}, method {method}"
        content = {**deepcopy(self.base), "method": None}
        for name, value in self.settings(method).items():
            apply_setting(content, name, value, where)
        apply_setting(content, "run.name", f"{self.name}-{method}", where)
        apply_setting(content, "run.seed", seed, where)
        if num_train is not None:
            apply_setting(content, "data.max_train", num_train, where)
        return validate_config(content, where)


@dataclass(frozen=True)
class Cell:
    """One run of a bench."""

    method: str
    share: float
    """Of the training questions, in (0, 1]."""
    seed: int
    config: RunConfig

    @property
    def name(self) -> str:
        """How people see it."""
        share = "" if self.share == 1 else f", {self.share:.0%} of the questions"
        return f"{self.method}, seed {self.seed}{share}"


def load_bench(path: Path, overrides: tuple[str, ...] = ()) -> BenchConfig:
    """Read a bench's file, and the run's file that it names.

    Args:
        path: YAML; `run` is a path relative to it.
        overrides: `section.key=value` texts on top of the run's settings.

    Returns:
        The bench, every cell of which is a valid run.

    Raises:
        ConfigError: If a file or a setting breaks a rule.
    """
    content = read_yaml(path)
    run, settings = content.pop("run", None), content.pop("settings", {})
    if not isinstance(run, str) or not isinstance(settings, dict):
        msg = f"run must be the path of a run's file and settings a mapping ({path})."
        raise ConfigError(msg)
    base = read_yaml(path.parent / run)
    for name, value in settings.items():
        apply_setting(base, name, value, str(path))
    for override in overrides:
        apply_setting(base, *parse_override(override), "command line")
    try:
        bench = BenchConfig.model_validate({**content, "base": base})
    except ValidationError as error:
        raise ConfigError(explain(error, str(path))) from error
    for method in bench.methods:
        bench.run_config(method, bench.seeds[0])
    return bench
