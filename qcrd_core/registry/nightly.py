"""A night: what is new, where the student begins, and whether it becomes the champion.

    night = plan_night(config, warm_start=True)     reads only
    ... a run of night.config ...
    entry = decide_night(night, run_id)             registers, compares, promotes or keeps

A night is named by the hash of its questions, teacher and settings, as a run is. The registry's
history says which nights were decided: nothing new is found within seconds and asks no engine.
"""

import logging
from dataclasses import dataclass

from qcrd_core.config.models import FolderModel, Weights
from qcrd_core.config.run import RunConfig
from qcrd_core.registry import registry
from qcrd_core.registry.decision import decision_page
from qcrd_core.registry.registry import Entry, Version
from qcrd_core.run.context import RunContext
from qcrd_core.stages.plan import RunPlan, plan_run
from qcrd_core.store.store import Store

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Night:
    """What a night will do."""

    config: RunConfig
    """The settings; with a warm start the student's weights are those of the champion's folder."""
    version: str
    """Name of the version that it makes."""
    is_new: bool
    """Whether these questions, teacher and settings were not decided upon before."""
    news: str
    """A sentence: what is new, or that nothing is."""
    warm_start: str | None
    """Version that it begins with; None: the weights of the settings."""


def plan_night(config: RunConfig, *, warm_start: bool) -> Night:
    """Find out whether there is something to learn from. Reads only.

    Args:
        config: The settings.
        warm_start: Begin with the champion's weights and tokenizer. Without a champion, or where
            `student.model` has changed since it began, the settings' weights are taken, and the
            log says so.

    Returns:
        The night.

    Raises:
        ConfigError: If a setting breaks a rule.
        DataError: If questions break a rule, or a stored part is damaged.
        StoreError: If the store does not answer.
    """
    plan = plan_run(config)
    store, model = plan.context.store, config.run.name
    # Of the settings as given: a warm start must not make a new night out of each new champion.
    version = registry.version_name(plan.run_id)
    champion = registry.read_champion(store, model)
    decided = champion.latest(version)
    if decided is not None:
        news = (
            f"Nothing new to learn from: questions, teacher and settings are those of version "
            f"{version}, which was {decided.action} on {decided.at[:10]}."
        )
        return Night(config, version, is_new=False, news=news, warm_start=None)
    start = _warm_start(store, config, champion.version) if warm_start else None
    if start is not None:
        weights = FolderModel(path=store.fetch_folder(start.folder))
        student = config.student.model_copy(update={"model": weights})
        config = config.model_copy(update={"student": student})
    return Night(config, version, True, _news(plan), None if start is None else start.name)


def decide_night(night: Night, run_id: str) -> Entry:
    """Register a night's student and let it stand against the champion.

    Writes the decision beside the run's report.

    Args:
        night: From `plan_night`.
        run_id: Its complete run.

    Returns:
        The decision.

    Raises:
        StoreError: If the run is not complete, or the store refuses.
        DataError: If a table is damaged.
    """
    context = RunContext.open(night.config, run_id)
    version = registry.register(
        context.store, run_id, name=night.version, warm_start=night.warm_start
    )
    rule = night.config.promotion
    entry = registry.decide(context.store, version.model, version.name, rule)
    page = decision_page(version, entry, night.news, context.store)
    context.store.write_bytes(context.paths.decision, page.encode())
    return entry


def _news(plan: RunPlan) -> str:
    train, sampling = plan.split("train").height, plan.sampling
    if sampling is None:
        return f"{plan.num_imported:,} imported rationales of {train:,} training questions."
    num_asked = len({key[0] for shard in sampling.shards for key in shard.keys})
    return (
        f"When the night began, {num_asked:,} of {train:,} training questions were new, changed or "
        f"without all of their rationales: {sampling.num_missing:,} of {sampling.num_wanted:,} "
        "rationales were missing."
    )


def _warm_start(store: Store, config: RunConfig, name: str | None) -> Version | None:
    if name is None:
        logger.info("No champion to begin with yet: the settings' weights are taken")
        return None
    champion = registry.find_version(store, config.run.name, name)
    if _origin(store, champion) != config.student.model:
        logger.warning(
            "The champion %s began with another student.model: the settings' weights are taken",
            name,
        )
        return None
    return champion


def _origin(store: Store, version: Version) -> Weights:
    """Setting `student.model` that a version's line of warm starts began with."""
    while version.warm_start is not None:
        version = registry.find_version(store, version.model, version.warm_start)
    return registry.version_config(store, version).student.model
