"""The command line up to the point where a run would start: plans, and what it refuses."""

import io
import json
import re
import shlex
import socket
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
import yaml

from flows.commands.predict import predict
from qcrd_core.store.store import Store
from tests.support.distillation import settings_for, write_settings
from tests.support.sampling import Sampling
from tests.support.stub_engine import stub_engine
from tests.support.tiny_llama import make_tiny_llama

SPEC = {
    "name": "sums",
    "source": {"type": "files", "train": "sums.jsonl"},
    "columns": {"question_id": "id", "question": "text", "gold_answer": "result"},
    "answer": {"kind": "number", "marker": "The answer is"},
    "prompt": {"instruction": "Add the numbers."},
}


def _settings(folder, **sections):
    content = settings_for(folder, None, **sections)
    return write_settings(folder, content)


def _own_data(folder, rows=None, spec=SPEC):
    """A user's data set: its YAML file."""
    rows = [_row(i) for i in range(20)] if rows is None else rows
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "sums.jsonl").write_text(lines, encoding="utf-8")
    path = folder / "sums.yaml"
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")
    return path


def _row(number):
    return {"id": f"s{number}", "text": f"What is {number} + 2?", "result": number + 2}


def test_dry_run_shows_plan_and_prompt_and_writes_nothing(tmp_path, qcrd):
    path = _settings(tmp_path)

    code, out, _ = qcrd("run", "--config", path, "--dry-run", "teacher.num_samples=3")

    assert code == 0
    assert re.search(r"samples +72 wanted = 0 stored \+ 0 reused \+ 72 to sample", out)
    assert "Question: " in out
    assert out.splitlines()[-1] == f"qcrd run --config {path} teacher.num_samples=3"
    assert not (tmp_path / "store").exists()


def test_dry_run_gives_tokens_and_cost_and_names_the_limit(tmp_path, qcrd):
    budget = {"sampled_price": 10, "max_cost": 0.1, "gpu_tokens_per_second": 10}
    path = _settings(tmp_path, budget=budget)

    _, out, _ = qcrd("run", "--config", path, "--dry-run")

    # 24 questions x 5 samples x 256 tokens, at 36,000 tokens a GPU-hour.
    text = " ".join(out.split())
    assert re.search(r"estimate about [\d,]+ tokens of prompts, at most 30,720 sampled", text)
    assert (
        "at most 0.853 GPU-hours, cost at most 0.3072 (sampling stops at budget.max_cost = 0.1)"
        in text
    )


def test_dry_run_of_own_file_shows_its_instruction(tmp_path, qcrd):
    spec = _own_data(tmp_path)
    path = _settings(tmp_path, data={"dataset": str(spec)})

    code, out, _ = qcrd("run", "--config", path, "--dry-run")

    assert code == 0
    assert "Add the numbers.\n\nQuestion: What is" in out
    counts = re.search(r"sums: (\d+) train, (\d+) validation, (\d+) test questions", out)
    assert sum(map(int, counts.groups())) == 20


def test_init_and_then_the_command_it_ends_with(tmp_path, qcrd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _own_data(tmp_path)

    code, out, _ = qcrd("init", "sums.jsonl", "--to", "first run")

    assert code == 0
    assert re.search(r"answers +result .*\n +kind +number", out)
    assert re.search(r"warning +Only \d test questions", out)
    command = shlex.split(out.splitlines()[-1])
    assert command[:2] == ["qcrd", "run"]
    code, out, _ = qcrd(*command[1:], "teacher.endpoints=[http://127.0.0.1:9/v1]")
    assert code == 0
    assert "Question: What is" in out
    code, _, err = qcrd("init", "sums.jsonl", "--to", "first run")
    assert code == 2
    assert "sums.yaml exists" in err


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "teacher.num_smaples=3",
            r"teacher.num_smaples is not a setting \(.*\). Did you mean teacher.num_samples\?",
        ),
        ("teacher.num_samples=many", "teacher.num_samples must be valid integer.*'many'"),
        ("teacher.num_samples=1", "teacher.num_samples must be at least 2 for a majority vote"),
        ("teacher.num_samples", "An override must have the form section.key=value"),
        ("data.dataset=sums", "data.dataset must be a shipped data set"),
    ],
)
def test_run_with_wrong_setting_exits_with_2(tmp_path, qcrd, override, sentence):
    code, _, err = qcrd("run", "--config", _settings(tmp_path), override)

    assert code == 2
    assert re.search(sentence, err)
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([], "must hold at least one row; got none"),
        ([{"id": "a", "question": "1 + 1?"}], "must have the column text; got id, question"),
        ([_row(1), _row(2), _row(1)], "Question ids must be distinct.*got 1 repeated ids: s1"),
        ([{**_row(1), "result": "none"}], "A gold answer must be a number"),
        ([{"id": f"s{i}", "text": "1 + 1?"} for i in range(9)], "must have the column result"),
    ],
    ids=["empty", "column", "duplicate", "answer", "no gold"],
)
def test_run_with_wrong_questions_exits_with_1(tmp_path, qcrd, rows, sentence):
    spec = _own_data(tmp_path, rows)

    code, _, err = qcrd("run", "--config", _settings(tmp_path, data={"dataset": str(spec)}))

    assert code == 1
    assert re.search(sentence, err)
    assert not (tmp_path / "store").exists()


def test_run_without_validation_labels_is_refused_before_sampling(tmp_path, qcrd):
    spec = {**SPEC, "columns": {"question_id": "id", "question": "text"}}
    data = {"dataset": str(_own_data(tmp_path, spec=spec)), "label": "majority"}

    code, _, err = qcrd("run", "--config", _settings(tmp_path, data=data))

    assert code == 1
    assert "Validation questions must have gold answers" in err


def test_run_with_teacher_folder_without_tokenizer_exits_with_2(tmp_path, qcrd):
    folder = make_tiny_llama(tmp_path / "llama")
    (folder / "tokenizer.json").unlink()
    teacher = {"model": {"type": "folder", "path": str(folder)}, "endpoints": None}

    code, _, err = qcrd("run", "--config", _settings(tmp_path, teacher=teacher))

    assert code == 2
    assert re.search("must be a model folder with a tokenizer", err)


def _truncate(part):
    part.write_bytes(part.read_bytes()[:-40])


def _date_forward(part):
    table = pq.read_table(part)
    metadata = json.loads(table.schema.metadata[b"qcrd"])
    later = {b"qcrd": json.dumps({**metadata, "version": 99}).encode()}
    pq.write_table(table.replace_schema_metadata(later), part)


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (_truncate, "must be a whole Parquet file"),
        (_date_forward, "table of version 2 or older; got rationales version 99"),
    ],
)
def test_run_on_damaged_part_exits_with_1_and_leaves_it(tmp_path, qcrd, harm, sentence):
    with stub_engine() as engine:
        spec = _own_data(tmp_path)
        content = settings_for(tmp_path, engine, data={"dataset": str(spec)})
        part = _sample(content)
    harm(part)
    before = part.read_bytes()

    code, _, err = qcrd("run", "--config", write_settings(tmp_path, content))

    assert code == 1
    assert re.search(sentence, err)
    assert str(part) in err
    assert part.read_bytes() == before


def _sample(content):
    """Sample all questions into one part."""
    from qcrd_core.config.run import validate_config
    from qcrd_core.data.load import load_questions
    from qcrd_core.data.spec import load_spec
    from qcrd_core.teacher.prepare import prepare_teacher

    content["teacher"]["questions_per_shard"] = 100
    config = validate_config(content, "test")
    spec = load_spec(config.data.dataset)
    train = load_questions(spec, config.data).filter(pl.col("split") == "train")
    prepared = prepare_teacher(config.teacher.model, config.run.scratch)
    sampling = Sampling(config, train, spec, prepared)
    sampling.run()
    folder = Store(config.run.store, config.run.scratch).local(sampling.plan().folder)
    (part,) = folder.glob("part-*.parquet")
    return part


def test_import_prints_what_the_configuration_needs(tmp_path, qcrd):
    rows = [{"q": f"What is {i} + 2?", "gold": i + 2, "said": ["It is 4.", "No"]} for i in range(3)]
    path = tmp_path / "said.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    spec = _own_data(tmp_path)

    code, out, _ = qcrd(
        "import", path, "--store", tmp_path / "store", "--dataset", spec,
        "--rationales", "said", "--question", "q", "--gold-answer", "gold",
    )  # fmt: skip

    assert code == 0
    assert re.search(r"without answer +3 \(50.00%\)", out)
    assert re.fullmatch(
        r"teacher.model='\{type: imported, generation: \"[0-9a-f]{12}\"\}'", out.splitlines()[-1]
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("run",), "--config"),
        (("predict", "nowhere", "q.jsonl"), "A student must be a folder that a run has written"),
        (("predict", "nowhere", "q.jsonl", "--output", "a.txt"), "The output file must end in"),
        (("run", "--config", "absent.yaml"), "absent.yaml must be a readable YAML file"),
    ],
)
def test_command_with_wrong_arguments_exits_with_2(qcrd, arguments, sentence):
    code, out, err = qcrd(*arguments)

    assert code == 2
    assert sentence in out + err


def test_settings_lists_explains_and_corrects(qcrd):
    _, listed, _ = qcrd("settings")
    code, explained, _ = qcrd("settings", "answer.kind", "--dataset")
    wrong, _, err = qcrd("settings", "teacher.num_smaples")

    assert (code, wrong) == (0, 2)
    assert listed.splitlines()[-1] == "qcrd settings teacher.num_samples"
    assert explained.startswith("answer.kind\n")
    assert err == "teacher.num_smaples is not a setting. Did you mean teacher.num_samples?\n"


def test_misspelt_command_is_refused_with_the_nearest(qcrd):
    code, out, err = qcrd("settigns")

    assert code == 2
    assert 'Did you mean "settings"?' in out + err


def test_dry_run_of_the_first_configuration_shows_its_plan(qcrd):
    code, out, _ = qcrd("run", "--config", "configs/first.yaml", "--dry-run")

    assert code == 0
    assert "google/t5-v1_1-base" in out


def test_status_and_down_without_server_say_how_to_start_one(tmp_path, qcrd, monkeypatch):
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))

    _, status, _ = qcrd("status")
    code, down, _ = qcrd("down")

    assert code == 0
    assert re.search(r"server +not running", status)
    assert down.startswith("Nothing was running.")
    assert status.splitlines()[-1] == down.splitlines()[-1] == "qcrd up"


def test_up_on_used_port_exits_with_2(tmp_path, qcrd, monkeypatch):
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, _, err = qcrd("up", "--port", taken.getsockname()[1])

    assert code == 2
    assert "--port must be a free port of 127.0.0.1" in err


def test_retry_failed_says_what_failed_and_a_dry_run_changes_nothing(tmp_path, qcrd):
    path = _settings(tmp_path)

    code, out, _ = qcrd("run", "--config", path, "--dry-run", "--retry-failed")

    assert code == 0
    assert out.startswith("0 stored samples failed\n")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["up", "--port", "70000"], 'Invalid value "70000" for --port. Must be <= 65535.'),
        (["explore", "store", "--port", "0"], 'Invalid value "0" for --port. Must be >= 1.'),
        (["up", "--notify", "chat"], 'Invalid value "chat" for --notify. Must be an address'),
        (["deploy", "--notify", "http://[1"], 'Invalid value "http://[1" for --notify.'),
        (["inspect", "store", "--where", "1", "--limit", "0"], 'Invalid value "0" for --limit.'),
    ],
)
def test_option_out_of_bounds_is_refused_before_anything_starts(command, said, qcrd):
    code, _, err = qcrd(*command)

    assert code == 2
    assert said in err


@pytest.mark.parametrize(
    "command",
    [["janitor", "--store", "{store}", "--scratch", "{long}"], ["doctor", "--store", "{long}"]],
)
def test_path_that_the_system_refuses_is_one_sentence(command, tmp_path, qcrd):
    long, store = "x" * 5000, str(tmp_path)

    code, _, err = qcrd(*(part.format(long=long, store=store) for part in command))

    assert code == 1
    assert "cannot be used: File name too long. Check the path and its rights." in err
    assert "Traceback" not in err


def test_predict_reads_standard_input_and_writes_standard_output(monkeypatch, capfdbinary):
    def answer(_, file, target, **options):
        assert options["batch_size"] == 128
        target.write_bytes(b"answered: " + file.read_bytes())
        counts = {"num_questions": 1, "num_no_answer": 0, "num_without_confidence": 0}
        return {**counts, "accuracy": None}

    monkeypatch.setattr("qcrd_core.stages.prediction.predict_file", answer)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"question": "?"}\n')))

    predict("student", Path("-"))

    said = capfdbinary.readouterr()
    assert said.out == b'answered: {"question": "?"}\n'
    assert b"questions       1" in said.err
