"""What the quickstart ships must fit what it runs: a changed prompt would sample all anew."""

from pathlib import Path

from qcrd_core.config.run import load_config
from qcrd_core.stages.plan import plan_run

ROOT = Path(__file__).parents[2]


def test_quickstart_reuses_its_samples_and_samples_the_rest_live(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)  # its paths start at the repository's root
    config = load_config(ROOT / "configs" / "quickstart.yaml", (f"run.store={tmp_path}",))

    plan = plan_run(config)

    assert plan.teachers[0].sampling.reused.height == 5 * 976
    assert plan.teachers[0].sampling.num_missing == 5 * 24
    # A run counts what bears its name as sampled by itself.
    assert set(plan.teachers[0].sampling.reused["run_id"]) == {"shipped"}


def test_quickstart_ships_little():
    sizes = [path.stat().st_size for path in (ROOT / "quickstart" / "samples").iterdir()]
    adapter = ROOT / "quickstart" / "teacher" / "adapter_model.safetensors"

    assert sum(sizes) < 2e6
    assert adapter.stat().st_size < 8e6
