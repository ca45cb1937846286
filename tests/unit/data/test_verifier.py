"""Answers that the user's own function reads: the docs' example, failures, what is stored."""

import re
import sys
from pathlib import Path

import polars as pl
import pytest
from pydantic import ValidationError

from qcrd_core.config.run import DataSection
from qcrd_core.data.answers import AnswerSpec, canonical, extract
from qcrd_core.data.completions import read_completion
from qcrd_core.data.load import load_questions
from qcrd_core.data.prompts import prompt_identity, render_messages
from qcrd_core.data.spec import Demonstration, load_spec
from qcrd_core.data.verifier import log_failures, verifiable
from qcrd_core.errors import ConfigError, DataError

PAGE = Path(__file__).parents[3] / "docs" / "answers.md"
QUERY = "SELECT name FROM city WHERE country = 'NO'"
ODD = """
import os, signal, sys, time

def canonical(text, question):
    if text == "hangs":
        time.sleep(60)
    if text == "grows":
        return "x" * 2**40
    if text == "crashes":
        os.kill(os.getpid(), signal.SIGSEGV)
    if text == "exits":
        sys.exit(3)
    if text == "number":
        return 7
    if text == "half":
        return "\\ud800"
    if text == "asks":
        return question
    if text == "reads":
        return sys.stdin.read() or "nothing"
    print("this is no reply")
    return text.lower() or None
"""


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def cities(tmp_path):
    """The data set of the docs, in a folder."""
    (tmp_path / "sql_answers.py").write_text(blocks("python")[0])
    (tmp_path / "cities.yaml").write_text(blocks("yaml")[0])
    rows = [f'{{"question": "Which of {n} are Norwegian?", "query": "{QUERY}"}}' for n in range(9)]
    (tmp_path / "cities.jsonl").write_text("\n".join(rows))
    return tmp_path / "cities.yaml"


def odd(folder, **limits):
    (folder / "odd.py").write_text(ODD)
    return AnswerSpec.model_validate(
        {
            "kind": "verifier",
            "marker": "Answer:",
            "verifier": {"function": "odd:canonical", "folder": str(folder), **limits},
        }
    )


def test_example_of_the_docs_reads_gold_answers_and_samples(cities):
    spec = load_spec(str(cities))
    questions = load_questions(spec, DataSection(dataset=str(cities)))
    texts = [
        f"Norwegian rows. SQL: {QUERY}",
        "All names but one.\nSQL:\n```sql\nSELECT name FROM city WHERE people <> 360\n```\nSo.",
        "SQL: SELECT name FROM city",
        "SQL: SELECT nothing",
    ]

    found = [extract(text, spec.answer, None) for text in texts]

    gold = '[["Bergen"], ["Oslo"]]'
    assert set(questions["gold_answer"]) == {gold}
    assert set(questions["gold_target"]) == {QUERY}  # what a student learns
    assert [item.answer for item in found] == [
        gold,
        gold,
        '[["Bergen"], ["Malmo"], ["Oslo"]]',
        None,
    ]
    assert found[1].answer_raw == "SELECT name FROM city WHERE people <> 360"
    assert [item.rationale for item in found[:2]] == ["Norwegian rows.", "All names but one."]
    assert [item.error for item in found] == [None] * 4


def test_section_with_limits_of_the_docs_is_valid():
    spec = AnswerSpec.model_validate(_yaml(blocks("yaml")[1])["answer"])
    assert spec.verifier is not None
    assert spec.verifier.timeout_seconds == 5


def test_gold_answer_that_the_verifier_does_not_read_is_refused_with_its_row(cities):
    path = cities.with_name("cities.jsonl")
    path.write_text(path.read_text() + '\n{"question": "Which?", "query": "SELECT FROM"}')
    spec = load_spec(str(cities))
    with pytest.raises(DataError, match=r"sql_answers:canonical reads; got None \(.*row 10"):
        load_questions(spec, DataSection(dataset=str(cities)))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("hangs", "it took longer than 0.5 s"),
        ("grows", "it needed more than 256 MiB"),
        ("crashes", "its process died of SIGSEGV"),
        ("exits", "SystemExit: 3"),
        ("number", "it returned int, not a text or None"),
        ("half", "UnicodeEncodeError"),
        ("a" * 70_000, "it returned more than 65,536 characters"),
    ],
    ids=lambda value: value[:8],
)
def test_text_on_which_the_verifier_fails_has_no_answer_and_the_next_one_has(
    tmp_path, text, reason
):
    spec = odd(tmp_path, timeout_seconds=0.5, max_memory_mib=256)

    row = read_completion(f"I think so. Answer: {text}", spec, None)

    assert (row["status"], row["answer"], row["rationale"]) == ("no_answer", None, "I think so.")
    assert row["error"].startswith(f"The verifier failed: {reason}")
    assert canonical("Fine", spec, None) == "fine"


def test_memory_that_earlier_texts_have_leaked_fails_no_later_text(tmp_path):
    (tmp_path / "leak.py").write_text(
        "kept = []\n"
        "def canonical(text, question):\n"
        "    kept.append(bytearray(100 * 2**20))\n"
        "    return text\n"
    )
    verifier = {"function": "leak:canonical", "folder": str(tmp_path), "max_memory_mib": 256}
    spec = AnswerSpec.model_validate({"kind": "verifier", "verifier": verifier})

    assert [canonical(str(n), spec, None) for n in range(6)] == ["0", "1", "2", "3", "4", "5"]


def test_verifier_gets_the_question_and_neither_input_nor_output(tmp_path):
    spec = odd(tmp_path)
    assert canonical("asks", spec, None, "How many?") == "How many?"
    assert canonical("reads", spec, None) == "nothing"
    assert canonical("ABC", spec, None) == "abc"  # it prints


def test_thought_is_not_given_to_the_verifier(tmp_path):
    found = extract("<think>Answer: no</think>It is so. Answer: Yes", odd(tmp_path), None)
    assert (found.answer, found.rationale) == ("yes", "It is so.")


@pytest.mark.parametrize(
    ("said", "is_marked", "is_cut", "expected"),
    [
        (" 12 km ", True, False, "12 km"),
        ("```py\na\n```\nor\n```\nb\n```", True, False, "a"),
        ("```py\na\n```\nor\n```\nb\n```", False, False, "b"),
        ("SELECT na", True, True, None),
        ("```sql\nSELECT 1\n```\nThis", True, True, "SELECT 1"),
        ("```sql\nSELECT", True, True, None),
        ("  ", True, False, None),
    ],
)
def test_verifier_gets_a_whole_code_block_or_the_whole_text(said, is_marked, is_cut, expected):
    assert verifiable(said, is_marked=is_marked, is_cut=is_cut) == expected


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("absent:canonical", "No module named 'absent'"),
        ("odd:absent", "has no attribute 'absent'"),
        ("broken:canonical", "ZeroDivisionError"),
        ("leaves:canonical", "its process ended with exit code 5"),
    ],
)
def test_function_that_cannot_be_imported_is_refused_with_the_reason(cities, function, reason):
    folder = cities.parent
    (folder / "odd.py").write_text(ODD)
    (folder / "broken.py").write_text("1 / 0")
    (folder / "leaves.py").write_text("import os\nos._exit(5)")
    cities.write_text(cities.read_text().replace("sql_answers:canonical", function))
    with pytest.raises(ConfigError, match=rf"^answer\.verifier must name a .*{reason}.*searched"):
        load_spec(str(cities))


def test_changed_module_is_another_identity_and_never_reads_for_the_old_one(cities):
    old = load_spec(str(cities))
    module = cities.with_name("sql_answers.py")
    module.write_text(module.read_text() + "\n# changed\n")
    new = load_spec(str(cities))

    assert prompt_identity(old) != prompt_identity(new)
    assert old.answer.verifier is not None
    with pytest.raises(ConfigError, match="sql_answers:canonical has changed since"):
        old.answer.verifier.check()


def test_identity_holds_the_content_of_the_module_and_not_its_place(cities, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for path in cities.parent.iterdir():
        (elsewhere / path.name).write_text(path.read_text())
    here, there = (load_spec(str(folder / "cities.yaml")) for folder in (cities.parent, elsewhere))

    assert here.answer != there.answer
    assert prompt_identity(here) == prompt_identity(there)


def test_module_is_found_in_the_current_folder(cities, tmp_path_factory, monkeypatch):
    spec = load_spec(str(cities)).answer
    assert spec.verifier is not None
    moved = spec.verifier.model_copy(update={"folder": tmp_path_factory.mktemp("absent")})
    monkeypatch.chdir(cities.parent)
    moved.check()
    assert "sql_answers" not in sys.modules  # it runs in its own process alone


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "verifier"},
        {"kind": "text", "verifier": "a:b"},
    ],
)
def test_verifier_and_kind_go_together(settings):
    with pytest.raises(ValidationError, match=r"if answer\.kind is verifier, and only then"):
        AnswerSpec.model_validate(settings)


@pytest.mark.parametrize("name", ["canonical", "a:", "a b:c", "../a:f"])
def test_name_of_a_verifier_is_module_and_function(name):
    with pytest.raises(ValidationError, match="verifier"):
        AnswerSpec.model_validate({"kind": "verifier", "verifier": name})


def test_demonstration_of_a_query_ends_without_a_full_stop(cities):
    spec = load_spec(str(cities))
    shown = Demonstration(question="All?", rationale="All rows.", answer="SELECT 1")
    prompt = spec.prompt.model_copy(update={"demonstrations": (shown,)})
    messages = render_messages(spec.model_copy(update={"prompt": prompt}), "Which?")
    assert messages[1]["content"] == "All rows. SQL: SELECT 1"


def test_log_gives_the_most_frequent_reasons(caplog):
    errors = pl.Series(["The verifier failed: a", None, "b", "b", "c", "d"])
    assert log_failures(errors) == 5
    assert "failed on 5 texts" in caplog.text
    assert "2 x b; 1 x a; 1 x c; ..." in caplog.text


def test_log_says_nothing_if_nothing_failed(caplog):
    assert log_failures([None, None]) == 0
    assert caplog.text == ""


def _yaml(text):
    from qcrd_core.config.reading import parse_yaml

    return parse_yaml(text.encode(), "docs/answers.md")
