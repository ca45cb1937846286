"""The runner on Ray with Prefect's futures faked; real Ray is in tests/integration/test_ray.py."""

import logging
from types import SimpleNamespace

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Crashed, Failed

from flows.experimental import ray as on_ray_cluster
from flows.experimental.ray import RayRunner
from flows.runner import Runner, open_runner
from qcrd_core.config.run import validate_config
from qcrd_core.errors import ConfigError, SamplingError
from tasks.references import Checkpoint, Rationales, Run
from tests.support.distillation import settings_for


def _config(folder, **sections):
    engine = SimpleNamespace(url="http://127.0.0.1:9/v1")
    content = settings_for(folder, engine, **sections)
    content["run"] |= {"ray_address": "auto", "num_samplers": 2}
    return validate_config(content, "test")


class _Future:
    def __init__(self, state):
        self.state = state

    def wait(self):
        """All is over."""

    def result(self):
        return self.state.result()


class _Ray:
    """Says of each task what it came to, in the order of their submission."""

    def __init__(self, *states):
        self.states, self.submitted = list(states), []

    def submit(self, task, parameters, dependencies):
        assert set(dependencies) <= set(parameters)
        self.submitted.append((task.name, parameters))
        return _Future(self.states.pop(0))


@pytest.fixture
def here(monkeypatch):
    """Rounds whose negatives are written in this process; something is missing."""
    done = []
    monkeypatch.setattr(on_ray_cluster.rounds, "sample_negatives", SimpleNamespace(name="n"))
    monkeypatch.setattr(Runner, "sample_negatives", lambda *given: done.append(given[2]))
    _let_missing(monkeypatch, 5)
    return done


def _let_missing(monkeypatch, number):
    def find_missing(run):
        return Rationales(run.config, run.run_id, {"num_missing": number})

    monkeypatch.setattr(on_ray_cluster.teacher, "find_missing", find_missing)


def _lost():
    return Crashed(message="node died", data=RuntimeError("node died"))


def _sample(folder, ray):
    config = _config(folder)
    return RayRunner(config, ray).sample_teacher(Run(config, "run"))


def _negatives(folder, ray):
    """Negatives of round 1, which the student of round 0 is to write."""
    config = _config(folder, negatives={"lag": 1})
    on_ray, first = RayRunner(config, ray), Checkpoint(config, "run", 0)
    on_ray.begin_negatives(first)
    return on_ray.sample_negatives(first, 1)


@pytest.mark.usefixtures("here")
def test_samplers_of_which_one_ends_well_are_enough(tmp_path, caplog):
    ray = _Ray(_lost(), Completed(data={}))
    with caplog.at_level(logging.WARNING):
        found = _sample(tmp_path, ray)
    assert found.state.is_completed()
    assert len(ray.submitted) == 2
    assert "A sampler failed; others did its work: node died" in caplog.text


@pytest.mark.usefixtures("here")
def test_samplers_that_all_fail_give_the_first_error(tmp_path):
    ray = _Ray(*[Failed(message="x", data=SamplingError(f"must {n}")) for n in (1, 2)])
    with pytest.raises(SamplingError, match="must 1"):
        _sample(tmp_path, ray)


@pytest.mark.usefixtures("here")
def test_nothing_missing_asks_no_cluster(tmp_path, monkeypatch):
    _let_missing(monkeypatch, 0)
    assert _sample(tmp_path, _Ray()).counts["num_missing"] == 0


def test_negatives_begin_with_their_checkpoint_and_are_waited_for(tmp_path, here):
    config = _config(tmp_path, negatives={"lag": 2})
    ray = _Ray(Completed(data={}))
    on_ray, first = RayRunner(config, ray), Checkpoint(config, "run", 0)
    on_ray.begin_negatives(first)
    rounds = [parameters["round_"] for _, parameters in ray.submitted]
    assert on_ray.sample_negatives(first, 2).state.is_completed()
    assert (rounds, here) == ([2], [])


def test_negatives_that_are_lost_with_their_node_are_written_here(tmp_path, here, caplog):
    _negatives(tmp_path, _Ray(_lost()))
    assert here == [1]
    assert "the negatives of round 1, so they are written here: node died" in caplog.text


def test_negatives_that_cannot_be_written_are_an_error(tmp_path, here):
    failed = Failed(message="x", data=SamplingError("must"))
    with pytest.raises(SamplingError, match="must"):
        _negatives(tmp_path, _Ray(failed))
    assert here == []


def test_places_are_absolute_on_a_node_that_begins_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = _config(tmp_path, run={"store": "mine", "scratch": "s"}, teacher={"endpoints": "p"})
    remote = _config(tmp_path, run={"store": "s3://bucket/mine"}, teacher={"reuse": ["old"]})
    config, remote = (on_ray_cluster._for_any_node(each) for each in (config, remote))
    assert (config.run.store, config.run.scratch) == (str(tmp_path / "mine"), tmp_path / "s")
    assert config.teacher.endpoints == tmp_path / "p"
    assert (remote.run.store, remote.teacher.reuse) == ("s3://bucket/mine", ())


def test_missing_package_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(
        on_ray_cluster, "find_spec", lambda name: None if name == "prefect_ray" else name
    )
    sentence = r"needs the packages ray and prefect-ray; prefect_ray is not installed\. Run `pip"
    with pytest.raises(ConfigError, match=sentence), open_runner(Run(_config(tmp_path), "run")):
        pass


def test_cluster_without_a_prefect_server_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(on_ray_cluster, "find_spec", lambda name: name)
    with (
        temporary_settings({PREFECT_API_URL: None}),
        pytest.raises(ConfigError, match="PREFECT_API_URL must name a Prefect server"),
        open_runner(Run(_config(tmp_path), "run")),
    ):
        pass
