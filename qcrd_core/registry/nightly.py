"""A night: what is new, where training starts, and whether the student becomes the champion.

    night = plan_night(config, warm_start=True)     only reads
    ... a run of night.config ...
    entry = decide_night(night, run_id)             registers, compares, promotes or keeps

Like a run, a night is named by the hash of its questions, teacher and settings. The registry's
history says which nights were decided, so a night without news ends within seconds and starts no
engine.
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
    """The plan of a night."""

    config: RunConfig
    """The settings. For a warm start, `student.model` is the champion's folder."""
    version: str
    """Name of the version that the night makes."""
    is_new: bool
    """Whether there was no decision yet for these questions, teacher and settings."""
    news: str
    """A sentence that says what is new, or that nothing is new."""
    warm_start: str | None
    """Version whose weights training starts from; None for the weights of the settings."""


def plan_night(config: RunConfig, *, warm_start: bool) -> Night:
    """Find out whether there is something new to learn from. Only reads.

    Args:
        config: The settings.
        warm_start: Start from the champion's weights and tokenizer. If there is no champion, or if
            `student.model` has changed since the champion was trained, training starts from the
            weights of the settings, and the log says so.

    Returns:
        The night.

    Raises:
        ConfigError: If a setting is wrong.
        DataError: If questions are invalid, or a stored part is damaged.
        StoreError: If the store does not answer.
    """
    plan = plan_run(config)
    store, model = plan.context.store, config.run.name
    # Named by the settings as given, so that a new champion alone does not make a new night.
    version = registry.version_name(plan.run_id)
    champion = registry.read_champion(store, model)
    decided = champion.latest(version)
    if decided is not None:
        news = (
            f"Nothing new to learn from: questions, teacher and settings are the same as for "
            f"version {version}. Decision of {decided.at[:10]}: {decided.action}."
        )
        return Night(config, version, is_new=False, news=news, warm_start=None)
    start = _warm_start(store, config, champion.version) if warm_start else None
    if start is not None:
        weights = FolderModel(path=store.fetch_folder(start.folder))
        student = config.student.model_copy(update={"model": weights})
        config = config.model_copy(update={"student": student})
    return Night(config, version, True, _news(plan), None if start is None else start.name)


def decide_night(night: Night, run_id: str) -> Entry:
    """Register a night's student and compare it with the champion.

    Writes the decision into the run's folder.

    Args:
        night: From `plan_night`.
        run_id: The night's run, which is complete.

    Returns:
        The decision.

    Raises:
        StoreError: If the run is not complete, or the store cannot be written.
        DataError: If a table is damaged.
    """
    context = RunContext.open(night.config, run_id)
    version = registry.register(
        context.store, run_id, name=night.version, warm_start=night.warm_start
    )

    def explain(entry: Entry) -> None:
        page = decision_page(version, entry, night.news, context.store)
        context.store.write_bytes(context.paths.decision, page.encode())

    # The page is written first: once the decision is stored, the night is over and is not repeated.
    rule = night.config.promotion
    return registry.decide(context.store, version.model, version.name, rule, explain=explain)


def _news(plan: RunPlan) -> str:
    train = plan.split("train").height
    plans = [each.sampling for each in plan.teachers if each.sampling is not None]
    if not plans:
        num_imported = sum(each.num_imported for each in plan.teachers)
        return f"{num_imported:,} imported rationales for {train:,} training questions."
    num_asked = len({key[0] for each in plans for shard in each.shards for key in shard.keys})
    num_missing, num_wanted = (
        sum(getattr(each, name) for each in plans) for name in ("num_missing", "num_wanted")
    )
    return (
        f"{num_asked:,} of {train:,} training questions were new, changed or lacked rationales; "
        f"{num_missing:,} of {num_wanted:,} rationales were missing."
    )


def _warm_start(store: Store, config: RunConfig, name: str | None) -> Version | None:
    if name is None:
        logger.info("There is no champion yet, so training starts from student.model")
        return None
    champion = registry.find_version(store, config.run.name, name)
    if _origin(store, champion) != config.student.model:
        logger.warning(
            "The champion %s was trained from another student.model, so training starts from "
            "student.model instead of the champion",
            name,
        )
        return None
    return champion


def _origin(store: Store, version: Version) -> Weights:
    """Setting `student.model` of the first version in a chain of warm starts."""
    while version.warm_start is not None:
        version = registry.find_version(store, version.model, version.warm_start)
    return registry.version_config(store, version).student.model
