"""What a night finds new and where its student begins; whole nights are in integration."""

import pytest

from qcrd_core.config.run import validate_config
from qcrd_core.registry import registry
from qcrd_core.registry.nightly import plan_night
from qcrd_core.store.store import Store
from tests.support.distillation import settings_for
from tests.support.registered import registered


@pytest.fixture
def night(tmp_path):
    """Plan a night of model `synthetic` with a student of that kind."""

    def plan(student, *, warm_start=True):
        content = settings_for(tmp_path, None, student={"model": student})
        content["run"]["name"] = "synthetic"
        return plan_night(validate_config(content, "test"), warm_start=warm_start)

    return plan


@pytest.fixture
def store(tmp_path):
    store = Store(str(tmp_path / "store"), tmp_path / "scratch")
    registered(store, "one", lambda _: True)
    registry.promote(store, "synthetic", "one", "the first")
    return store


def test_night_begins_with_the_champion_of_the_same_student_model(night, store):
    planned = night({"type": "scratch"})

    assert planned.warm_start == "one"
    assert planned.config.student.model.path == store.fetch_folder("models/synthetic/one")
    assert "24 of 24 training questions were new, changed or lacked rationales" in planned.news


@pytest.mark.usefixtures("store")
def test_night_with_changed_student_model_begins_with_the_settings_and_says_so(night, caplog):
    planned = night({"type": "scratch", "num_layers": 1})

    assert planned.warm_start is None
    assert planned.config.student.model.type == "scratch"
    assert "The champion one was trained from another student.model" in caplog.text


@pytest.mark.usefixtures("store")
def test_night_has_one_version_whatever_the_champion_it_begins_with(night):
    assert (
        night({"type": "scratch"}).version == night({"type": "scratch"}, warm_start=False).version
    )


def test_night_without_champion_begins_with_the_settings(night):
    assert night({"type": "scratch"}).warm_start is None
