"""Data-set files are read, and explained where they break a rule."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from qcrd_core.data.answers import canonical, extract
from qcrd_core.data.prompts import render_messages
from qcrd_core.data.spec import FilesSource, HubSource, load_spec, shipped_names
from qcrd_core.data.templates import fill_template, template_fields
from qcrd_core.errors import ConfigError

MINIMAL: dict[str, Any] = {
    "name": "mine",
    "source": {"type": "files", "train": "train.jsonl"},
    "answer": {"kind": "number"},
}


def write_spec(folder: Path, **changes: Any) -> str:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({**MINIMAL, **changes}))
    return str(path)


def test_load_spec_of_own_file_resolves_paths_against_its_folder(tmp_path: Path) -> None:
    source = load_spec(write_spec(tmp_path)).source
    assert isinstance(source, FilesSource)
    assert source.train == tmp_path / "train.jsonl"


def test_load_spec_keeps_absolute_paths(tmp_path: Path) -> None:
    spec = load_spec(write_spec(tmp_path, source={"type": "files", "train": "/data/a.csv"}))
    assert isinstance(spec.source, FilesSource)
    assert spec.source.train == Path("/data/a.csv")


def test_shipped_names_are_the_six_data_sets() -> None:
    assert shipped_names() == ("anli", "cqa", "esnli", "gsm8k", "svamp", "word_problems")


@pytest.mark.parametrize("name", shipped_names())
def test_shipped_demonstrations_are_parsed_as_they_are_meant(name: str) -> None:
    spec = load_spec(name)
    assert spec.name == name
    messages = render_messages(spec, "A question?")
    for index, demonstration in enumerate(spec.prompt.demonstrations):
        lines = demonstration.question.split("\n(")[1:]
        choices = [line.partition(") ")[2] for line in lines] or None
        found = extract(messages[2 * index + 1]["content"], spec.answer, choices)
        assert found.rationale == demonstration.rationale
        assert found.answer is not None
        assert found.answer == canonical(demonstration.answer, spec.answer, choices)


def test_shipped_hub_sets_have_the_papers_split_sizes() -> None:
    sizes = {}
    for name in ("svamp", "cqa"):
        source = load_spec(name).source
        assert isinstance(source, HubSource)
        sizes[name] = (source.validation_size, source.test_size)
    assert sizes == {"svamp": (80, 200), "cqa": (975, None)}


def test_load_spec_of_unknown_name_lists_the_names() -> None:
    with pytest.raises(ConfigError, match=r"must be a shipped data set \(anli, .*got 'swamp'"):
        load_spec("swamp")


def test_load_spec_of_absent_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml must be a readable YAML file"):
        load_spec(str(tmp_path / "absent.yaml"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        pytest.param(
            {"sourse": 1}, "sourse is not a setting .*Did you mean source", id="unknown key"
        ),
        pytest.param({"answer": {"kind": "sum"}}, "answer.kind must be 'number'", id="kind"),
        pytest.param({"name": "a/b"}, "name must be", id="name is no folder"),
        pytest.param({"source": {"type": "files"}}, "source.train must be set", id="no train"),
        pytest.param(
            {"source": {"type": "ftp"}},
            "source.type must be one of .*; got 'ftp'",
            id="source type",
        ),
        pytest.param({"source": {"train": "a"}}, "source.type must be set", id="no source type"),
        pytest.param({"source": "a.csv"}, "source must be a section of settings", id="no section"),
        pytest.param(
            {"source": {"type": "files", "train": "a.csv", "test_fraction": 0.9}},
            "source.test_fraction must be less than 0.5",
            id="fraction",
        ),
        pytest.param(
            {"source": {"type": "hub", "repo": "a/b", "test": ["test"]}},
            "either validation or validation_size; got both or neither",
            id="hub without validation",
        ),
        pytest.param(
            {"answer": {"kind": "choice"}}, "columns.choices must be set", id="choice, no choices"
        ),
        pytest.param({"columns": {"choices": "options"}}, "and only then", id="choices, no choice"),
        pytest.param(
            {"prompt": {"question_template": "Solve!"}},
            r"must contain \{question\} once",
            id="prompt without question",
        ),
        pytest.param({"question_template": "{a.b!r}"}, "plain {name} placeholders", id="attribute"),
        pytest.param({"question_template": "{a"}, "expected '}'", id="open brace"),
        pytest.param(
            {
                "answer": {"kind": "number", "marker": None},
                "prompt": {"demonstrations": [{"question": "q", "rationale": "r", "answer": "1"}]},
            },
            "answer.marker must be set if there are prompt.demonstrations",
            id="demonstrations without marker",
        ),
        pytest.param(
            {"prompt": {"demonstrations": [{"question": "q", "rationale": "r"}]}},
            "prompt.demonstrations.0.answer must be set",
            id="demonstration without answer",
        ),
    ],
)
def test_load_spec_with_a_broken_rule_explains_it(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        load_spec(write_spec(tmp_path, **changes))
    assert "mine.yaml" in str(caught.value)
    assert "pydantic" not in str(caught.value)


def test_fill_template_takes_values_as_they_are() -> None:
    template = "{body}\n{ques tion} {{x}}"
    assert template_fields(template) == ("body", "ques tion")
    assert fill_template(template, {"body": "{0.a}", "ques tion": "b"}) == "{0.a}\nb {x}"
