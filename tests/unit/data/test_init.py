"""`qcrd init`: a file becomes a data set and a run that pass the checks of a dry run."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from qcrd_core.config.files import load_yaml
from qcrd_core.config.run import load_config
from qcrd_core.data import files
from qcrd_core.data.guess.draft import Draft, draft_dataset
from qcrd_core.data.guess.write import _flow, _quoted, write_files
from qcrd_core.data.questions import parts_to_questions
from qcrd_core.data.spec import load_spec
from qcrd_core.errors import ConfigError, DataError, QcrdError
from qcrd_core.stages.describe import describe_plan
from qcrd_core.stages.plan import RunPlan, plan_run

Rows = list[dict[str, Any]]
NOBODY = "teacher.endpoints=[http://127.0.0.1:9/v1]"
SUMS = [{"question": f"What is {n} + 1?", "answer": n + 1} for n in range(200)]
TOPICS = ("billing", "delivery", "login", "refund")


def tickets(folder: Path) -> Path:
    rows = [{"id": i, "subject": f"Case {i}", "body": f"Please help, I have problem {i}.",
             "category": TOPICS[i % 4]} for i in range(600)]  # fmt: skip
    return write_csv(folder / "tickets.csv", rows)


def tags(folder: Path) -> Path:
    rows = [{"text": f"The film number {i} was shown.", "tags": ";".join(TOPICS[: 1 + i % 4])}
            for i in range(200)]  # fmt: skip
    return write_csv(folder / "tags.csv", rows)


def extraction(folder: Path) -> Path:
    rows = [{"text": f"Ann {i} lives in Rome.", "entities": {"name": f"Ann {i}", "city": "Rome"}}
            for i in range(200)]  # fmt: skip
    return write_lines(folder / "extraction.jsonl", rows)


def sql(folder: Path) -> Path:
    rows = [{"context": f"CREATE TABLE t{i} (a INT)", "question": f"How many rows has t{i}?",
             "answer": f"SELECT COUNT(*) FROM t{i} WHERE a < {i}"} for i in range(200)]  # fmt: skip
    return write_lines(folder / "sql.jsonl", rows)


def choices(folder: Path) -> Path:
    rows = [{"question": f"What is {i} + 1?", "options": ["a cat", "a dog", "a cow"],
             "answer": i % 3} for i in range(200)]  # fmt: skip
    return write_lines(folder / "choices.jsonl", rows)


def lettered(folder: Path) -> Path:
    rows = [{"question": f"Which of {i}?", "A": "red", "B": "green", "C": "blue",
             "answer": "ABC"[i % 3], "explanation": f"The light of {i} says so."}
            for i in range(200)]  # fmt: skip
    return write_csv(folder / "lettered.csv", rows)


def nested(folder: Path) -> Path:
    rows = [{"id": f"q{i}", "context": f"Person {i} was born in town {i}.",
             "question": f"Where was person {i} born?",
             "answers": {"text": [f"town {i}", f"in town {i}"], "answer_start": [3, 0]}}
            for i in range(200)]  # fmt: skip
    pl.DataFrame(rows).write_parquet(folder / "nested.parquet")
    return folder / "nested.parquet"


def grade_school(folder: Path) -> Path:
    rows = [{"question": f"Ann has {i} pens and buys 2. How many now?",
             "answer": f"She has {i} + 2 = <<{i}+2={i + 2}>>{i + 2} pens.\n#### {i + 2:,}"}
            for i in range(1100)]  # fmt: skip
    (folder / "train.jsonl.gz").write_bytes(gzip.compress(lines(rows).encode()))
    (folder / "test.jsonl.gz").write_bytes(gzip.compress(lines(rows[:50]).encode()))
    return folder / "train.jsonl.gz"


def german(folder: Path) -> Path:
    rows = [{"Frage": f"Was kostet Posten {i}?", "Antwort": f"{i + 1}.234,{i % 10}0 €"}
            for i in range(200)]  # fmt: skip
    pl.DataFrame(rows).write_csv(folder / "preise.tsv", separator="\t")
    return folder / "preise.tsv"


def numbered_labels(folder: Path) -> Path:
    rows = [{"text": f"A review of film {i}.", "label": i % 2} for i in range(200)]
    pl.DataFrame(rows).write_parquet(folder / "reviews.parquet")
    return folder / "reviews.parquet"


def chat(folder: Path) -> Path:
    rows = [{"messages": [{"role": "system", "content": "Answer."},
                          {"role": "user", "content": f"Order {i} is late."},
                          {"role": "assistant", "content": TOPICS[i % 4]}]}
            for i in range(200)]  # fmt: skip
    return write_lines(folder / "chat.jsonl", rows)


def lines(rows: Rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write_lines(path: Path, rows: Rows) -> Path:
    path.write_text(lines(rows), encoding="utf-8")
    return path


def write_csv(path: Path, rows: Rows) -> Path:
    pl.DataFrame(rows).write_csv(path)
    return path


def begin(path: Path, *, is_whole: bool = True) -> tuple[Draft, RunPlan, Sequence[str]]:
    """What `qcrd init` and then `qcrd run --dry-run` do, and the lines of the two files."""
    draft = draft_dataset(path, question=None, answer=None)
    written = write_files(draft, Path())
    plan = plan_run(load_config(written[1], (NOBODY,)))
    assert load_spec(str(written[0])) == draft.spec
    assert draft.is_whole == is_whole
    texts = [file.read_text(encoding="utf-8").splitlines() for file in written]
    assert max(map(len, texts)) <= 25
    return draft, plan, [line for text in texts for line in text]


@pytest.mark.parametrize(
    ("make", "answer", "gold", "question"),
    [
        (tickets, {"kind": "label", "labels": list(TOPICS)}, "billing", "Case 0\nPlease"),
        (tags, {"kind": "labels", "labels": list(TOPICS)}, "billing", "The film number 0"),
        (extraction, {"kind": "json"}, '{"city": "Rome", "name": "Ann 0"}', "Ann 0 lives"),
        (sql, {"kind": "text"}, "select count(*) from t0 where a < 0", "CREATE TABLE t0 (a INT)\n"),
        (choices, {"kind": "choice"}, "a cat", "What is 0 + 1?\nAnswer Choices:\n(a) a cat"),
        (lettered, {"kind": "choice"}, "red", "Which of 0?\nAnswer Choices:\n(a) red"),
        (nested, {"kind": "text"}, "town 0", "Person 0 was born in town 0.\nWhere"),
        (grade_school, {"kind": "number"}, "1002", "Ann has 1000 pens"),
        (german, {"kind": "number", "decimal_mark": ","}, "12234,1", "Was kostet Posten 11?"),
        (
            chat,
            {"kind": "label", "labels": list(TOPICS)},
            "billing",
            "System: Answer.\n\nUser: Order 0 is",
        ),
        (numbered_labels, {"kind": "label", "labels": ["0", "1"]}, "0", "A review of film 0."),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_init_of_a_file_gives_a_run_that_passes_the_dry_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any, answer: Any, gold: str,
    question: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    draft, plan, _ = begin(make(tmp_path).relative_to(tmp_path))
    found = plan.spec.answer.model_dump(mode="json", exclude_defaults=True)
    assert found == answer
    rows = {row["question"]: row["gold_answer"] for row in plan.questions.iter_rows(named=True)}
    assert [g for q, g in rows.items() if q.startswith(question)] == [gold]
    assert plan.questions.equals(draft.questions)
    assert len(draft.demonstrations) == 2


def draft_of(folder: Path, rows: Rows, **named: str) -> Draft:
    path = write_lines(folder / "mine.jsonl", rows)
    options: dict[str, str | None] = {"question": None, "answer": None, **named}
    return draft_dataset(path, question=options["question"], answer=options["answer"])


@pytest.mark.parametrize(
    ("row", "parts", "answer", "gold"),
    [
        (lambda n: {"question": {"stem": f"Sun {n}?", "choices": [
            {"text": "hot", "label": "A"}, {"text": "cold", "label": "B"}]},
            "answerKey": "AB"[n % 2]}, ("question.stem",), {"kind": "choice"}, "hot"),
        (lambda n: {"ID": f"c{n}", "Body": f"Ann has {n} pens.", "Question": "How many?",
                    "Equation": f"{n}", "Answer": float(n), "Type": "Addition"},
         ("Body", "Question"), {"kind": "number"}, "0"),
        (lambda n: {"instruction": f"Tell me {n}.", "context": f"Text {n}.", "category": "qa",
                    "response": f"Told {n}."}, ("context", "instruction"), {"kind": "text"},
         "told 0"),
        (lambda n: {"problem": f"Find {n}.", "type": "Algebra",
                    "solution": f"So $\\boxed{{{n}}}$."}, ("problem",), {"kind": "number"}, "0"),
        (lambda n: {"context": f"Tom {n}.", "question": "Why?", "answerA": "so", "answerB": "as",
                    "answerC": "if", "label": str(1 + n % 3)}, ("context", "question"),
         {"kind": "choice"}, "so"),
    ],
    ids=["nested choices", "body", "instruction", "boxed", "counted from 1"],
)  # fmt: skip
def test_init_finds_the_columns_of_public_data_sets(
    tmp_path: Path, row: Any, parts: tuple[str, ...], answer: dict[str, Any], gold: str
) -> None:
    draft = draft_of(tmp_path, [row(n) for n in range(60)])
    assert draft.found.parts == parts
    assert draft.spec.answer.model_dump(exclude_defaults=True) == answer
    first = parts_to_questions([("mine", [row(0)])], draft.spec, "train")
    assert first["gold_answer"].to_list() == [gold]


def test_init_of_a_folder_of_shards_looks_at_the_first_and_names_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sums").mkdir()
    for number in range(2):
        write_lines(tmp_path / "sums" / f"part-{number}.jsonl", SUMS[number * 100 :][:100])
    draft, plan, text = begin(Path("sums"), is_whole=False)
    assert "source: {type: files, train: sums}" in text
    assert (draft.num_rows, plan.questions.height) == (100, 200)


def test_init_refuses_columns_for_conversations(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds conversations.*Omit them"):
        draft_dataset(chat(tmp_path), question="text", answer=None)


def test_init_refuses_a_named_column_without_answers(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="The column note holds no answer"):
        draft_of(tmp_path, [row | {"note": ""} for row in SUMS], answer="note")


def test_init_takes_demonstrations_from_train_with_the_reasoning_of_the_file(
    tmp_path: Path,
) -> None:
    draft = draft_dataset(grade_school(tmp_path), question=None, answer=None)
    train = draft.questions.filter(split="train")["question"].to_list()
    shown = draft.spec.prompt.demonstrations
    assert len(shown) == 2
    assert all(one.question in train for one in shown)
    assert all("<<" not in one.rationale and one.answer in one.rationale for one in shown)


def test_init_without_reasoning_leaves_the_demonstrations_to_be_filled_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    draft, plan, text = begin(tickets(tmp_path).relative_to(tmp_path))
    assert plan.spec.prompt.demonstrations == ()
    assert sum("rationale: '...'" in line and line.startswith("  #   - ") for line in text) == 2
    assert draft.warnings == ()


@pytest.mark.parametrize(
    ("rows", "warning"),
    [
        (SUMS[:50], "test questions have answers"),
        (SUMS[:50], "training questions: a student learns little"),
        (SUMS + SUMS[:7], "7 rows repeat a question"),
        ([*SUMS, {"question": "What is 1 + 1?", "answer": 5}], "1 of them have several answers"),
        ([row | {"split": "train"} for row in SUMS], "Column split is not used"),
        ([row | {"answer": row["answer"] if n % 2 else None} for n, row in enumerate(SUMS)],
         "training questions have no answer"),
        ([{"text": f"Mail {n} came.", "label": "spam" if n % 20 == 0 else "ham"}
          for n in range(400)], "95% of the answers are 'ham'"),
        ([{"text": f"Film {n} is on.", "label": n % 2} for n in range(400)], "labels are numbers"),
        ([{"question": f"What is {n}?", "answer": f"{n} {'long ' * 30}"} for n in range(400)],
         "texts of more than 15"),
        ([{"question": f"Which {n}?", "options": ["a", "b", "c"], "answer": "1"}
          for n in range(400)], "No answer is 0 and none is the last number"),
        ([row | {"answer": "3,5" if n % 2 else "3.5"} for n, row in enumerate(SUMS)],
         "decimal comma and 100 with a point"),
    ],
)  # fmt: skip
def test_init_warns_of_what_will_hurt(tmp_path: Path, rows: Rows, warning: str) -> None:
    assert any(warning in sentence for sentence in draft_of(tmp_path, rows).warnings)


def test_dry_run_warns_of_a_prompt_that_never_names_the_marker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _, plan, _ = begin(tickets(tmp_path).relative_to(tmp_path))
    assert "warning" not in describe_plan(plan)
    text = Path("tickets.yaml").read_text(encoding="utf-8").replace('sentence "The answer is"', "x")
    Path("tickets.yaml").write_text(text, encoding="utf-8")
    plan = plan_run(load_config(Path("run.yaml"), (NOBODY,)))
    assert "never names the marker 'The answer is'" in describe_plan(plan)
    plan = plan_run(load_config(Path("run.yaml"), (NOBODY, "teacher.api=completions")))
    assert "marker" not in describe_plan(plan)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (SUMS[:9], "at least 10 questions"),
        ([{"question": f"What is {n}?"} for n in range(20)], "of the answers; it has question"),
        ([{"a1": n, "b1": n} for n in range(20)], "that of the questions; it has a1, b1"),
        ([*SUMS, {"question": "Many?", "answer": "lots"}], r"row 201, question"),
        ([*SUMS, {"question": " ", "answer": 3}], r"A question must not be empty.*row 201"),
        ([{"question": f"{n}?", "answer": n, "split": {"a": 1}} for n in range(20)] + [[]],
         "line 21"),
    ],
)  # fmt: skip
def test_init_refuses_with_one_reason(tmp_path: Path, rows: Any, reason: str) -> None:
    with pytest.raises(QcrdError, match=reason) as caught:
        draft_of(tmp_path, rows)
    assert "\n" not in str(caught.value)


def test_init_refuses_a_broken_line_and_semicolons(tmp_path: Path) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_text(lines(SUMS) + '{"question": "What', encoding="utf-8")
    with pytest.raises(DataError, match=r"broken\.jsonl, line 201"):
        draft_dataset(path, question=None, answer=None)
    path = tmp_path / "frage.csv"
    path.write_text("frage;antwort\nWas?;3\nWer?;4\n" * 9, encoding="utf-8")
    with pytest.raises(ConfigError, match="separated by semicolons"):
        draft_dataset(path, question=None, answer=None)


def test_init_uses_the_columns_that_the_user_names(tmp_path: Path) -> None:
    rows = [row | {"other": f"Sum {n}"} for n, row in enumerate(SUMS)]
    assert draft_of(tmp_path, rows, question="other").spec.columns.question == "other"
    with pytest.raises(ConfigError, match=r"--answer must name a column .*; got x"):
        draft_of(tmp_path, rows, answer="x")


def test_init_never_overwrites(tmp_path: Path) -> None:
    draft = draft_of(tmp_path, SUMS)
    (tmp_path / "run.yaml").write_text("mine")
    with pytest.raises(ConfigError, match=r"run\.yaml exists"):
        write_files(draft, tmp_path)
    assert not (tmp_path / "mine.yaml").exists()
    assert (tmp_path / "run.yaml").read_text() == "mine"
    write_files(draft, tmp_path / "new")


@pytest.mark.parametrize("ending", ["jsonl", "csv", "jsonl.gz", "parquet"])
def test_init_reads_the_beginning_of_a_big_file_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    rows = [{"question": f'What is\n"{n}" + 1?', "answer": n + 1} for n in range(500)]
    path = tmp_path / f"big.{ending}"
    if ending == "parquet":
        pl.DataFrame(rows).write_parquet(path)
    elif ending == "csv":
        pl.DataFrame(rows).write_csv(path)
    else:
        text = lines(rows).encode()
        path.write_bytes(gzip.compress(text) if ending.endswith("gz") else text)
    assert draft_dataset(path, question=None, answer=None).is_whole
    monkeypatch.setattr(files, "_MOST_BYTES", 8000)
    monkeypatch.setattr(files, "_MOST_ROWS", 150)
    draft = draft_dataset(path, question=None, answer=None)
    assert 100 < draft.num_rows <= 150
    assert not draft.is_whole
    assert "its beginning only" in write_files(draft, tmp_path / "new")[0].read_text()


@pytest.mark.parametrize(
    "text", ["a: b, [c] # d", "yes", 'it\'s "so"\nnext\u2028\x85', "  ", "ü\t"]
)
def test_values_of_the_written_yaml_are_read_as_they_were(text: str) -> None:
    value = {"a": [text, 1], "b": text, "c": True}
    assert load_yaml(_flow(value)) == value
    assert load_yaml(f"x: {_quoted(text)}") == {"x": text}
