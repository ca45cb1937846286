"""The whole of `qcrd run`, as a user starts it: real Prefect server, real DeepSpeed jobs.

The teacher is a stub of the engine's protocol, so that the runs are short; the real engine is in
test_vllm.py.
"""

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import polars as pl
import psutil
import pytest
import yaml
from polars.testing import assert_frame_equal
from safetensors.torch import load_file
from starlette.testclient import TestClient
from transformers import AutoTokenizer, T5ForConditionalGeneration

from data_schemas import Condensed, Metrics, Predictions, Rationales, Scores, Votes
from explorer.app import make_app
from explorer.data import Explorer
from qcrd_core.config.run import validate_config
from qcrd_core.run.context import RunContext
from qcrd_core.student.metadata import StudentMetadata
from qcrd_core.teacher.servers.launch import free_port
from tests.support.distillation import (
    NUM_TRAIN,
    open_run,
    qcrd,
    rationales,
    run_flow,
    settings_for,
    start_qcrd,
    taught_teacher,
    write_settings,
)
from tests.support.graph import edges

pytestmark = pytest.mark.timeout(600)

NUM_SAMPLES = 5 * NUM_TRAIN


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nobody disturbed, with an embedded Prefect server."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch, taught_teacher() as engine:
        patch.setenv("PREFECT_HOME", str(folder / "prefect"))
        content = settings_for(folder, engine)
        done = qcrd("run", "--config", write_settings(folder, content))
    assert done.returncode == 0, done.stderr
    return content, open_run(content), done


def test_run_ends_with_student_report_and_next_command(whole):
    _, context, done = whole
    folder = context.store.local(context.paths.best_student)
    model = T5ForConditionalGeneration.from_pretrained(folder, use_safetensors=True)
    prompt = AutoTokenizer.from_pretrained(folder)("predict: How many?", return_tensors="pt")

    assert model.generate(**prompt, max_new_tokens=2).shape[1] > 1
    assert context.store.exists(context.paths.report)
    assert done.stdout.splitlines()[-1].endswith(f" predict {folder} FILE.jsonl")
    assert "Traceback" not in done.stdout + done.stderr


def test_prefect_draws_the_run_as_the_algorithm(whole):
    content, _, _ = whole
    folder = Path(content["run"]["store"]).parent

    assert edges(folder / "prefect", "distill") == {
        ("Prepare run", "Check student"),
        ("Check student", "Sample teacher"),
        ("Sample teacher", "Vote"),
        ("Vote", "Make tokenizers"),
        ("Make tokenizers", "Train round 0"),
        *((("Vote"), f"Score rationales for round {t}") for t in range(3)),
        *((f"Score rationales for round {t}", f"Train round {t}") for t in range(3)),
        *((f"Train round {t}", f"Validate round {t}") for t in range(3)),
        *((f"Validate round {t}", "Test and report") for t in range(3)),
        # The discriminator learns on, the student trains on.
        *(
            (f"Score rationales for round {t - 1}", f"Score rationales for round {t}")
            for t in (1, 2)
        ),
        *((f"Train round {t - 1}", f"Train round {t}") for t in (1, 2)),
        # The arc: the student of round t - j (here j = 1) writes the negatives of round t.
        *((f"Train round {t - 1}", f"Sample negatives of round {t}") for t in (1, 2)),
        *((f"Sample negatives of round {t}", f"Score rationales for round {t}") for t in (1, 2)),
    }


def test_run_keeps_every_rationale_negative_and_score(whole):
    _, context, _ = whole
    negatives = context.store.read_table(context.paths.negatives(2), Rationales)
    scores = context.store.read_table(context.paths.scores(2), Scores)

    assert rationales(context).height == NUM_SAMPLES
    assert negatives["model"].unique().to_list() == ["checkpoints/round=001/student"]
    assert negatives.height == NUM_TRAIN
    assert scores["source"].unique().sort().to_list() == ["teacher", "student"]


def test_run_measures_each_stage_and_drops_its_checkpoints(whole):
    _, context, _ = whole
    metrics = context.store.read_table(context.paths.metrics, Metrics)

    assert metrics["stage"].unique().sort().to_list() == [
        "data", "discriminator", "negatives", "sampling", "servers", "test", "timing", "train",
        "validation", "vote",
    ]  # fmt: skip
    assert metrics.filter(pl.col("stage") == "test")["round"].n_unique() == 1
    assert not context.store.exists(f"{context.paths.root}/checkpoints")


def test_run_again_says_that_it_is_complete_and_asks_nothing(whole):
    content, _, done = whole
    path = Path(content["run"]["store"]).parent / "settings.yaml"

    again = qcrd("run", "--config", path)  # the engine is gone: any request would fail

    assert again.returncode == 0
    assert "(complete)" in again.stdout
    assert again.stdout.splitlines()[-1] == done.stdout.splitlines()[-1]


def test_predict_answers_a_file_and_measures_it(whole, tmp_path):
    _, context, _ = whole
    path = tmp_path / "mine.jsonl"
    path.write_text('{"question": "Tom had 3 apples and got 4. How many?"}\n' * 2)

    done = qcrd("predict", context.store.local(context.paths.best_student), path)

    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "mine.predictions.jsonl").read_text().splitlines()
    answer = json.loads(lines[1])
    assert answer["question"] == "Tom had 3 apples and got 4. How many?"
    # The student's confidences are calibrated exactly if its validation answers were enough.
    test = context.store.read_table(f"{context.paths.root}/predictions/test", Predictions)
    assert test["raw_confidence"].null_count() == 0
    about = context.store.read_json(f"{context.paths.best_student}/qcrd.json", StudentMetadata)
    is_calibrated = about.calibration is not None
    assert (answer["confidence"] is not None) == is_calibrated
    assert (test["confidence"].null_count() == 0) == is_calibrated
    assert done.stdout.splitlines()[-1].endswith("mine.predictions.jsonl")


@pytest.mark.usefixtures("prefect_server")
def test_marks_made_in_the_explorer_are_followed_and_counted_by_the_next_run(whole, tmp_path):
    settings, first, _ = whole
    shutil.copytree(settings["run"]["store"], tmp_path / "store")
    places = {"store": str(tmp_path / "store"), "scratch": str(tmp_path / "scratch")}
    content = {**settings, "run": {**settings["run"], **places}}
    before = first.store.read_table(first.paths.votes, Votes)
    texts = first.store.read_table(f"datasets/{first.read_spec().name}/rationales", Rationales)
    # A whole question is rejected but for one wrong sample, which is kept.
    wrong = texts.join(before, on="question_id").filter(pl.col("answer") != pl.col("gold_answer"))
    name, chosen = wrong.filter(pl.col("agreement") < 1).sort("question_id").select(
        "question_id", "sample_idx"
    ).row(0)  # fmt: skip
    marks = {k: "keep" if k == chosen else "reject" for k in range(5)}
    _mark(tmp_path / "store", first.paths.run_id, texts["generation"][0], {name: marks})

    done = qcrd("run", "--config", write_settings(tmp_path, content))  # the engine is gone

    assert done.returncode == 0, done.stderr
    runs = [path.name for path in (tmp_path / "store" / "runs").iterdir()]
    (run_id,) = set(runs) - {first.paths.run_id}
    context = RunContext.open(validate_config(content, "test"), run_id)
    assert rationales(context).filter(question_id=name)["sample_idx"].to_list() == [chosen]
    assert rationales(context).height == NUM_SAMPLES - 4
    scores = context.store.read_table(context.paths.scores(2), Scores)
    trained = scores.filter(pl.col("question_id") == name, pl.col("source") == "teacher")
    assert trained.select("sample_idx", "polarity").rows() == [(chosen, "positive")]
    report = context.store.read_bytes(context.paths.report).decode()
    assert "<td>rejected by curator</td><td>4</td>" in report
    assert "<td>kept by curator</td><td>1</td>" in report
    assert_frame_equal(first.store.read_table(first.paths.votes, Votes), before)


def _mark(store, run_id, generation, marks):
    """Press the buttons of the explorer's table."""
    origin = "http://127.0.0.1:8400"
    app = make_app(Explorer(str(store), store.parent / "explorer"))
    with TestClient(app, base_url=origin, follow_redirects=False) as client:
        for question_id, by_sample in marks.items():
            for sample_idx, mark in by_sample.items():
                data = {"generation": generation, "question_id": question_id}
                data |= {"sample_idx": sample_idx, "mark": mark}
                answer = client.post(f"/runs/{run_id}/mark", data=data, headers={"origin": origin})
                assert answer.status_code == 303, answer.text


def _sampled_one_part(context):
    folder = Path(context["run"]["store"], "datasets")
    return any(folder.rglob("part-*.parquet"))


def _trained_two_steps(context):
    folder = Path(context["run"]["store"], "runs")
    return any(folder.rglob("checkpoints/round=001/engine/step=*/DONE"))


def _validated_round_zero(context):
    folder = Path(context["run"]["store"], "runs")
    return any(folder.rglob("metrics/validation-round=000.parquet"))


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(
    ("moment", "delay"),
    [(_sampled_one_part, 0), (_trained_two_steps, 0), (_validated_round_zero, 0.6)],
    ids=["sampling", "training", "negatives"],
)
def test_run_killed_and_started_again_ends_as_the_undisturbed_one(whole, tmp_path, moment, delay):
    undisturbed = whole[1]
    # A step takes a few milliseconds: a checkpoint after each lets the kill fall between two.
    training = {"checkpoint_seconds": 0.001}
    with taught_teacher(delay_seconds=0.05) as engine:
        content = settings_for(
            tmp_path, engine, training=training, teacher={"concurrency": 4, "shards_in_flight": 1}
        )
        path = write_settings(tmp_path, content)
        first = start_qcrd("run", "--config", path, log=tmp_path / "log")
        _wait(lambda: moment(content), 120)
        time.sleep(delay)
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        stored = sum(pl.read_parquet(p).height for p in tmp_path.rglob("generation=*/*.parquet"))
        num_asked = engine.num_asked
        again = qcrd("run", "--config", path)

        assert again.returncode == 0, again.stderr
        assert engine.num_asked - num_asked == NUM_SAMPLES - stored
    context = open_run(content)
    assert context.paths.run_id == undisturbed.paths.run_id
    assert_frame_equal(rationales(context), rationales(undisturbed))
    assert _student(context).keys() == _student(undisturbed).keys()
    assert all((_student(context)[k] == v).all() for k, v in _student(undisturbed).items())


@pytest.mark.usefixtures("prefect_server")
def test_halves_of_a_run_end_as_the_whole_one(whole, tmp_path):
    undisturbed = whole[1]
    with taught_teacher() as engine:
        path = write_settings(tmp_path, settings_for(tmp_path, engine))
        too_early = run_flow("train_rounds", path)
        sampled = run_flow("sample_teacher", path)
    trained = run_flow("train_rounds", path)  # the engine is gone: any request would fail

    assert "has no vote yet" in too_early.stderr
    assert sampled.returncode == 0, sampled.stderr
    assert trained.returncode == 0, trained.stderr
    context = open_run(settings_for(tmp_path, engine))
    assert context.paths.run_id == undisturbed.paths.run_id
    assert context.store.exists(context.paths.report)
    assert all((_student(context)[k] == v).all() for k, v in _student(undisturbed).items())


@pytest.mark.usefixtures("prefect_server")
def test_run_with_options_beyond_the_paper_ends_and_counts_them(tmp_path):
    options = {
        "loss": {
            "pos_select": "softmin",
            "neg_loss": "softplus",
            "neg_tokens": "after_false_step",
            "quality_weights": False,
        },
        "negatives": {"verify": "promote", "num_samples": 2},
        "discriminator": {"loss": "infonce"},
        "evaluation": {"infer": "vote_k", "compare": ["predict"]},
        "training": {"num_rounds": 2},
        "teacher": {"condense": {"max_tokens": 6}},
    }
    with taught_teacher() as engine:
        content = settings_for(tmp_path, engine, **options)
        done = qcrd("run", "--config", write_settings(tmp_path, content))
    assert done.returncode == 0, done.stderr

    context = open_run(content)
    metrics = context.store.read_table(context.paths.metrics, Metrics)
    names = set(metrics["name"])
    scores = context.store.read_table(context.paths.scores(1), Scores)
    negatives = context.store.read_table(context.paths.negatives(1), Rationales)
    assert negatives["sample_idx"].to_list() == [0, 1] * NUM_TRAIN
    assert metrics.filter(pl.col("stage") == "test-predict", name="accuracy").height == 1
    assert names >= {
        "num_student_positives",
        "num_student_right_dropped",
        "num_false_steps_found",
        "num_negatives_like_a_positive",
        "num_without_rationale_answer",
    }
    assert scores["rationale_weight"].unique().to_list() == [1.0]
    condensed = context.store.read_table(context.paths.condensed, Condensed)
    learnt = set(scores.filter(source="teacher")["rationale"])
    shorter = set(condensed.drop_nulls("rationale")["rationale"])
    assert shorter
    assert shorter <= learnt
    assert not learnt & set(condensed.filter(verdict="ok")["original"])


@pytest.mark.usefixtures("prefect_server")
def test_interrupted_run_leaves_no_process_and_says_how_to_go_on(tmp_path):
    with taught_teacher(delay_seconds=0.2) as engine:
        path = write_settings(tmp_path, settings_for(tmp_path, engine))
        run = start_qcrd("run", "--config", path, log=tmp_path / "log")
        _wait(lambda: engine.num_asked > 0, 120)
        run.send_signal(signal.SIGINT)
        code = run.wait(60)

    said = (tmp_path / "log").read_text()
    assert code == 130
    assert said.splitlines()[-1].startswith("Stopped. Finished work is kept")
    _wait(lambda: not _processes_of(run.pid), 10)  # the fork server sees its end a moment later


def test_terminated_run_leaves_no_process_and_no_server(tmp_path, monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)  # so that it starts a server of its own
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    with taught_teacher(delay_seconds=0.2) as engine:
        path = write_settings(tmp_path, settings_for(tmp_path, engine))
        run = start_qcrd("run", "--config", path, log=tmp_path / "log")
        _wait(lambda: engine.num_asked > 0, 120)
        children = psutil.Process(run.pid).children(recursive=True)
        assert any("flows.server.app" in " ".join(child.cmdline()) for child in children)
        run.terminate()
        assert run.wait(60) == 143

    _wait(lambda: not any(child.is_running() for child in children), 10)


@pytest.mark.usefixtures("prefect_server")
def test_second_process_on_a_run_is_refused(tmp_path):
    with taught_teacher(delay_seconds=1.0) as engine:
        path = write_settings(tmp_path, settings_for(tmp_path, engine))
        first = start_qcrd("run", "--config", path, log=tmp_path / "log")
        _wait(lambda: engine.num_asked > 0, 120)
        second = qcrd("run", "--config", path)
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()

    assert second.returncode == 1
    assert re.search(
        rf"Run tiny-\w+ is already being trained by process {first.pid}\.", second.stderr
    )


def _student_without_tokenizer(*, folder, content, **_):
    model = folder / "student"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "t5"}')
    content["student"]["model"] = {"type": "folder", "path": str(model)}


def _short_student(*, content, **_):
    content["student"]["max_input_tokens"] = 8


def _short_teacher(*, engine, **_):
    engine.max_model_len = 260


def _store_below_a_file(*, folder, content, **_):
    (folder / "file").write_text("")
    content["run"]["store"] = str(folder / "file" / "store")


def _silent_endpoint(*, content, **_):
    content["teacher"]["endpoints"] = [f"http://127.0.0.1:{free_port()}/v1"]


def _no_answers(*, engine, **_):
    engine.writer = lambda *_: " I would rather not say."


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(
    ("harm", "code", "sentence"),
    [
        (_student_without_tokenizer, 2, "A model must come with a tokenizer; got none from"),
        (_short_student, 1, "A question must fit into student.max_input_tokens = 8; got 38 longer"),
        (_short_teacher, 1, "A prompt and its completion must fit into the teacher's context"),
        (_store_below_a_file, 1, "could not be written"),
        (_silent_endpoint, 1, "must answer like an OpenAI-compatible server"),
        (_no_answers, 1, "None of the 120 rationales ends in an answer of kind number"),
    ],
)
def test_run_that_cannot_work_ends_with_one_sentence(tmp_path, harm, code, sentence):
    with taught_teacher() as engine:
        content = settings_for(tmp_path, engine)
        harm(folder=tmp_path, content=content, engine=engine)
        done = qcrd("run", "--config", write_settings(tmp_path, content))

    assert done.returncode == code, done.stderr
    assert re.search(sentence, done.stderr.splitlines()[-1])
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.usefixtures("prefect_server")
def test_run_over_imported_rationales_starts_no_teacher(tmp_path):
    rows = [
        {
            "q": f"What is {i} + 2?",
            "gold": i + 2,
            "said": [f"{i} + 2 = {i + 2}."] * 3 + ["It is 0."],
        }
        for i in range(30)
    ]
    path = tmp_path / "said.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = {
        "name": "sums",
        "source": {"type": "files", "train": "said.jsonl"},
        "columns": {"question": "q", "gold_answer": "gold"},
        "answer": {"kind": "number"},
    }
    (tmp_path / "sums.yaml").write_text(yaml.safe_dump(spec))
    with taught_teacher() as engine:
        content = settings_for(tmp_path, engine)
    store, dataset = content["run"]["store"], str(tmp_path / "sums.yaml")
    brought = qcrd(
        "import", path, "--store", store, "--dataset", dataset, "--rationales", "said",
        "--question", "q", "--gold-answer", "gold",
    )  # fmt: skip
    content["data"] = {"dataset": dataset}
    setting = brought.stdout.splitlines()[-1].removeprefix("teacher.model='").removesuffix("'")
    content["teacher"] = {"model": yaml.safe_load(setting), "num_samples": 4}
    content["training"]["num_rounds"] = 1

    done = qcrd("run", "--config", write_settings(tmp_path, content))

    assert done.returncode == 0, done.stderr
    assert re.search(r"teacher, majority, training questions +100.0%", done.stdout)


def _student(context):
    return load_file(context.store.local(context.paths.best_student) / "model.safetensors")


def _wait(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def _processes_of(session):
    """Processes that still run in a session."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(entry.name)) == session and (entry / "cmdline").read_bytes():
                found.append(entry.name)
        except OSError:
            continue
    return found
