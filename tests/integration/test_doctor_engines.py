"""The doctor against the engines that are really installed."""

from qcrd_core.ops.doctor import examine, format_checks


def test_examine_on_this_machine_finds_the_training_engines(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    checks = {check.name: check for check in examine(str(tmp_path))}
    assert {checks[name].status for name in ("torch", "transformers", "DeepSpeed")} == {"ok"}
    assert "build" in checks["torch"].detail
    assert "cpu_adam" in checks["DeepSpeed"].detail
    assert "runs on imported rationales" in format_checks(list(checks.values()))
