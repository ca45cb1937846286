"""A bench's file: which cells it stands for, and what is refused before any of them starts."""

import pytest
import yaml

from qcrd_core.bench.config import load_bench
from qcrd_core.config.known_methods import METHODS
from qcrd_core.errors import ConfigError

RUN = {
    "run": {"name": "tiny", "store": "s"},
    "data": {"dataset": "word_problems"},
    "teacher": {"model": {"type": "hub", "name": "none"}},
    "discriminator": {"model": {"type": "scratch"}},
    "student": {"model": {"type": "scratch"}},
}


def _load(folder, *overrides, **content):
    (folder / "run.yaml").write_text(yaml.safe_dump(RUN), encoding="utf-8")
    path = folder / "bench.yaml"
    whole = {"name": "b", "run": "run.yaml", "methods": ["dss_sc", "qcrd"], **content}
    path.write_text(yaml.safe_dump(whole), encoding="utf-8")
    return load_bench(path, overrides)


def _refusal(folder, **content):
    with pytest.raises(ConfigError) as caught:
        _load(folder, **content)
    (line,) = str(caught.value).splitlines()
    return line


def test_cells_are_seeds_by_methods_by_shares(tmp_path):
    bench = _load(tmp_path, seeds=[3, 4], shares=[0.25], share_methods=["qcrd"])

    cells = [(cell.seed, cell.method, cell.share) for cell in bench.cells(num_train=10)]

    one = [("dss_sc", 1.0), ("qcrd", 1.0), ("qcrd", 0.25)]
    assert cells == [(seed, *rest) for seed in (3, 4) for rest in one]


def test_cell_is_the_run_with_its_seed_share_and_method(tmp_path):
    settings = {"training.num_rounds": 7}
    bench = _load(tmp_path, settings=settings, shares=[0.25], share_methods=["dss_sc"])

    whole, quarter, *_ = (cell.config for cell in bench.cells(num_train=10))

    assert whole.training.num_rounds == 7
    assert whole.run.name == "b-dss_sc"
    assert (whole.data.max_train, quarter.data.max_train) == (None, 2)
    assert (whole.loss.beta, whole.loss.pos_select) == (0.0, "sample")
    assert bench.run_config("qcrd", 0).loss.beta == 0.2


def test_cells_of_all_methods_share_the_teachers_samples(tmp_path):
    bench = _load(tmp_path, methods=list(METHODS), seeds=[0, 1])

    teachers = {cell.config.teacher.model_dump_json() for cell in bench.cells(num_train=10)}

    assert len(teachers) == 1


def test_variant_is_a_method_of_ones_own(tmp_path):
    variant = {"description": "hardest negative", "settings": {"loss.neg_select": "min"}}
    bench = _load(tmp_path, methods=["qcrd", "dss_sc", "hard"], variants={"hard": variant})

    assert bench.run_config("hard", 0).loss.neg_select == "min"
    assert bench.description("hard") == "hardest negative"


def test_override_is_on_top_of_the_run(tmp_path):
    assert _load(tmp_path, "training.num_rounds=2").run_config("qcrd", 0).training.num_rounds == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"methods": ["qcrd", "dss_sc", "best"]}, "methods must name known ones"),
        ({"methods": ["qcrd"]}, "references must be among methods; got dss_sc"),
        ({"shares": [0.5], "share_methods": ["mi"]}, "share_methods must be among methods; got mi"),
        ({"shares": [1.5]}, "shares must lie between 0 and 1; got [1.5]"),
        ({"seeds": [1, 1]}, "seeds must not repeat a value; got [1, 1]"),
        ({"seed": 1}, "seed is not a setting here"),
        ({"run": 3}, "run must be the path of a run's file"),
        (
            {"variants": {"qcrd": {"description": "mine", "settings": {"loss.beta": 1}}}},
            "variants must have new names; qcrd is already a method",
        ),
    ],
)
def test_what_a_bench_cannot_mean_is_refused_in_one_line(tmp_path, content, message):
    assert _refusal(tmp_path, **content).startswith(message)


def test_contradictory_options_of_a_method_are_refused_at_load(tmp_path):
    variant = {
        "description": "hardest of none",
        "settings": {
            "loss.neg_select": "min",
            "negatives.student": False,
            "negatives.teacher_minority": False,
        },
    }

    message = _refusal(tmp_path, methods=["qcrd", "dss_sc", "odd"], variants={"odd": variant})

    assert message.startswith("loss.neg_select applies only when the student learns from negatives")
    assert "bench b, method odd" in message
