"""Nights in a row: the flow `redistill-nightly` with real DeepSpeed jobs and a stub teacher."""

import json
import time
from pathlib import Path

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.testing.utilities import prefect_test_harness
from safetensors.torch import load_file

from flows.redistill_nightly import redistill_nightly
from qcrd_core.config.run import validate_config
from qcrd_core.data.word_problems import generate
from qcrd_core.registry.registry import find_version, read_champion, register, version_config
from qcrd_core.store.store import Store
from tests.support.distillation import settings_for, taught_teacher, write_settings

pytestmark = pytest.mark.timeout(600)

K, NUM_TRAIN, NUM_NEW = 3, 12, 10


class Nights:
    """A store, a growing file of questions, and a teacher that counts what it is asked."""

    def __init__(self, folder, engine):
        self.folder, self.engine = folder, engine
        self.config = validate_config(
            settings_for(
                folder,
                engine,
                data={"dataset": str(folder / "sums.yaml")},
                teacher={"num_samples": K},
                training={"num_rounds": 1, "steps_per_round": 2},
                discriminator={"pretrain_steps": 1},
                promotion={"max_p_value": 1.0, "first_accuracy": 0.0},
            ),
            "test",
        )
        self.settings = write_settings(folder, self.config.model_dump(mode="json"))
        self.store = Store(self.config.run.store, self.config.run.scratch)
        questions = generate(0, num_train=1000, num_validation=200, num_test=400).to_dicts()
        self.by_split = {
            split: [row for row in questions if row["split"] == split]
            for split in ("train", "validation", "test")
        }
        spec = {
            "name": "sums",
            "source": {"type": "files"} | {name: f"{name}.jsonl" for name in self.by_split},
            "columns": {"gold_answer": "gold_answer", "template": "template"},
            "answer": {"kind": "number", "marker": "The answer is", "stop": ["\n\n"]},
        }
        (folder / "sums.yaml").write_text(yaml.safe_dump(spec))
        self._write("validation", 6)
        self._write("test", 8)

    def run(self, num_train, **more):
        """One night: (what the flow returned, requests to the teacher, seconds)."""
        self._write("train", num_train)
        before, start = self.engine.num_asked, time.monotonic()
        result = redistill_nightly(str(self.settings), **more)
        return result, self.engine.num_asked - before, time.monotonic() - start

    def _write(self, split, count):
        lines = (json.dumps(row) + "\n" for row in self.by_split[split][:count])
        Path(self.folder, f"{split}.jsonl").write_text("".join(lines))


@pytest.fixture(scope="module")
def nights(tmp_path_factory):
    with prefect_test_harness(server_startup_timeout=180), taught_teacher() as engine:
        yield Nights(tmp_path_factory.mktemp("nights"), engine)


def _pages():
    wanted = ArtifactFilter(key=ArtifactFilterKey(any_=["decision-tiny"]))
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=wanted)
    return [one.data for one in sorted(found, key=lambda one: one.created)]


def test_first_night_samples_everything_and_makes_a_champion(nights):
    result, num_asked, _ = nights.run(NUM_TRAIN)

    assert num_asked == NUM_TRAIN * K
    assert result["action"] == "promoted"
    assert read_champion(nights.store, "tiny").version == result["version"]
    (page,) = _pages()
    assert page.startswith(f"# {result['version']} is now the champion of tiny")
    assert "36 of 36 rationales were missing" in page


def test_night_without_news_ends_in_seconds_and_asks_nothing(nights):
    result, num_asked, seconds = nights.run(NUM_TRAIN)

    assert (result["action"], num_asked) == ("nothing new", 0)
    assert seconds < 15
    assert len(read_champion(nights.store, "tiny").history) == 1
    assert _pages()[-1].startswith("Nothing new to learn from: questions, teacher and settings are")


def test_night_with_new_questions_asks_for_them_alone_and_begins_with_the_champion(nights):
    before = read_champion(nights.store, "tiny").version

    result, num_asked, _ = nights.run(NUM_TRAIN + NUM_NEW, warm_start=True)

    assert num_asked == NUM_NEW * K
    version = find_version(nights.store, "tiny", result["version"])
    assert version.warm_start == before
    # The champion's vocabulary, not one made of tonight's texts.
    folders = [nights.store.fetch_folder(f"models/tiny/{name}") for name in (before, version.name)]
    assert len({(folder / "tokenizer.json").read_bytes() for folder in folders}) == 1
    old, new = (load_file(folder / "model.safetensors") for folder in folders)
    assert all(old[name].shape == new[name].shape for name in old)
    # Two steps with a learning rate of 5e-5 cannot lead further from where it began.
    assert all((old[name] - new[name]).abs().max() < 3e-4 for name in old)
    assert version_config(nights.store, version).student.model.path == folders[0]


def test_night_with_warm_start_is_decided_once(nights):
    result, num_asked, _ = nights.run(NUM_TRAIN + NUM_NEW, warm_start=True)

    assert (result["action"], num_asked) == ("nothing new", 0)


def test_night_that_died_before_its_decision_decides_without_training(nights, monkeypatch):
    monkeypatch.setattr("qcrd_core.registry.registry.decide", _die)
    with pytest.raises(KeyboardInterrupt):
        nights.run(NUM_TRAIN + NUM_NEW + 1)
    monkeypatch.undo()

    result, num_asked, seconds = nights.run(NUM_TRAIN + NUM_NEW + 1)

    assert (result["action"], num_asked) in {("kept", 0), ("promoted", 0)}
    assert seconds < 15
    versions = [entry.version for entry in read_champion(nights.store, "tiny").history]
    assert versions.count(result["version"]) == 1
    assert register(nights.store, "tiny-" + result["version"]).name == result["version"]


def _die(*_, **__):
    raise KeyboardInterrupt
