"""Generated word problems: right answers, no leakage, the same for the same seed."""

import re
from itertools import islice
from pathlib import Path

import polars as pl
import pytest
import yaml

from data_schemas import Questions
from qcrd_core.data import word_problems
from qcrd_core.data.word_problems import (
    Lesson,
    generate,
    lessons,
    num_distinct_questions,
    perfect_rationales,
)
from qcrd_core.errors import ConfigError

_STEP = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")
_NUM_LESSONS = 3000
_FILE = Path(word_problems.__file__).with_suffix(".yaml")
TEMPLATES = {entry["name"] for entry in yaml.safe_load(_FILE.read_text())["templates"]}


@pytest.fixture(scope="module")
def questions() -> pl.DataFrame:
    return generate(0)


@pytest.fixture(scope="module")
def some_lessons() -> list[Lesson]:
    return list(islice(lessons(0), _NUM_LESSONS))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text))


def _keys(frame: pl.DataFrame) -> list[tuple[str, tuple[int, ...]]]:
    return [(template, _numbers(text)) for template, text in frame["template", "question"].rows()]


def _calculate(left: str, sign: str, right: str) -> float:
    a, b = int(left), int(right)
    return {"+": a + b, "-": a - b, "*": a * b, "/": a / b}[sign]


def test_generate_with_defaults_makes_valid_splits_of_the_stated_sizes(
    questions: pl.DataFrame,
) -> None:
    Questions.validate(questions)
    sizes = dict(questions.group_by("split").len().cast({"split": pl.String}).iter_rows())
    assert sizes == {"train": 1000, "validation": 200, "test": 400}
    first = questions.filter(pl.col("split") == "train")["question_id"][0]
    assert first == "wp-train-0001"


def test_generate_uses_every_template_in_every_split(questions: pl.DataFrame) -> None:
    assert 16 <= len(TEMPLATES) <= 20
    for _, frame in questions.group_by("split"):
        assert set(frame["template"]) == TEMPLATES


def test_generate_gives_the_value_of_the_equation_as_gold_answer(questions: pl.DataFrame) -> None:
    for equation, answer in questions["gold_target", "gold_answer"].iter_rows():
        assert re.fullmatch(r"[\d ()+*/-]+", equation)
        assert eval(equation) == int(answer) > 0


def test_generate_writes_equations_of_the_numbers_in_the_question(questions: pl.DataFrame) -> None:
    for text, equation in questions["question", "gold_target"].iter_rows():
        assert set(_numbers(equation)) == set(_numbers(text))


def test_generate_keeps_questions_short(questions: pl.DataFrame) -> None:
    assert questions["question"].str.split(" ").list.len().max() <= 30


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_generate_never_repeats_template_and_numbers(seed: int) -> None:
    keys = _keys(generate(seed))
    assert len(set(keys)) == len(keys)


def test_lessons_share_no_template_and_numbers_with_any_question(
    some_lessons: list[Lesson],
) -> None:
    every = generate(7, num_train=num_distinct_questions(), num_validation=0, num_test=0)
    taught = {(lesson.template, _numbers(lesson.question)) for lesson in some_lessons}
    assert len(taught) > 1000
    assert taught.isdisjoint(_keys(every))


def test_lessons_calculate_every_step_rightly(some_lessons: list[Lesson]) -> None:
    for lesson in some_lessons:
        steps = _STEP.findall(lesson.rationale)
        assert steps, lesson
        for left, sign, right, result in steps:
            assert _calculate(left, sign, right) == int(result), lesson
        assert steps[-1][3] == lesson.answer, lesson
        assert len(steps) == len(re.findall(r"[-+*/]", lesson.equation)), lesson


def test_lessons_word_each_template_in_several_ways(some_lessons: list[Lesson]) -> None:
    for template in sorted(TEMPLATES):
        rationales = [item.rationale for item in some_lessons if item.template == template]
        assert len({re.sub(r"\d+|[A-Z]\w+", "", text) for text in rationales}) >= 3
        assert max(len(text.split()) for text in rationales) <= 30


def test_generate_twice_gives_the_same_table(questions: pl.DataFrame) -> None:
    assert generate(0).equals(questions)
    assert list(islice(lessons(3), 20)) == list(islice(lessons(3), 20))


def test_generate_with_another_seed_gives_other_questions(questions: pl.DataFrame) -> None:
    assert not generate(1)["question"].equals(questions["question"])


def test_generate_with_more_train_keeps_the_questions_there_were(questions: pl.DataFrame) -> None:
    larger = generate(0, num_train=1500)
    kept = larger.join(questions, on="question_id", how="semi", maintain_order="left")
    assert kept.equals(questions)


def test_generate_with_too_many_questions_says_how_many_there_are() -> None:
    with pytest.raises(ConfigError, match=f"cannot make more than {num_distinct_questions()}"):
        generate(0, num_train=num_distinct_questions())


def test_generate_with_negative_count_is_refused() -> None:
    with pytest.raises(ConfigError, match="num_test must be at least 0; got -1"):
        generate(0, num_test=-1)


def test_perfect_rationales_are_right_in_every_step_and_belong_to_their_question(questions):
    train = questions.filter(pl.col("split") == "train")
    joined = train.join(perfect_rationales(0), on="question_id", validate="1:1")
    assert joined.height == train.height
    for row in joined.iter_rows(named=True):
        numbers = set(re.findall(r"\d+", row["gold_target"]))
        for text in row["rationales"]:
            assert text.endswith(f" The answer is {row['gold_answer']}.")
            assert numbers <= set(re.findall(r"\d+", text))
            for left, sign, right, result in _STEP.findall(text):
                assert eval(f"{left} {sign} {right}") == int(result)
