"""What the stage does around the sampling itself; that is in test_sample and in integration."""

from data_schemas import Rationales
from qcrd_core.config.run import validate_config
from qcrd_core.stages.plan import begin_run, plan_run
from qcrd_core.stages.sampling import sample_teacher
from qcrd_core.vote.rationales import read_rationales
from tests.support.distillation import settings_for
from tests.support.tables import make_rationales

MANY = 16


def test_sample_teacher_joins_parts_where_an_earlier_start_left_many(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("qcrd_core.store.compact.MANY", MANY)
    sections = {
        "data": {"max_train": MANY + 1},
        "teacher": {"num_samples": 2, "questions_per_shard": 1},
    }
    config = validate_config(settings_for(tmp_path, None, **sections), "test")
    sampling = plan_run(config).teachers[0].sampling
    store = plan_run(config).context.store
    for shard in sampling.shards:
        keys = [
            {
                "question_id": q,
                "sample_idx": k,
                "prompt_hash": h,
                "generation": sampling.fingerprint,
            }
            for q, k, h in shard.keys
        ]
        rows = make_rationales([{**key, "answer": "7"} for key in keys])
        store.write_table(f"{sampling.folder}/{shard.part}", rows, Rationales)
    plan = plan_run(config)
    begin_run(plan)

    caplog.set_level("INFO", "qcrd_core")
    done = sample_teacher(plan.context)

    assert (done["num_stored"], done["num_sampled"]) == (2 * (MANY + 1), 0)
    assert f"Joined {MANY + 1} parts into 1" in caplog.text
    assert len(store.part_files(sampling.folder)) == 1
    assert read_rationales(plan.context).height == 2 * (MANY + 1)
