"""When the teacher is asked, with what, and what happens while it is away."""

import asyncio
from dataclasses import replace

import pytest
import yaml

from qcrd_core.config.endpoints import Endpoint
from qcrd_core.data.spec import DatasetSpec
from qcrd_core.errors import ConfigError, SamplingError
from qcrd_core.serving.batches import Answered
from qcrd_core.serving.escalation import Escalation, Teacher, TeacherRun, surest_point
from qcrd_core.serving.student import ServedStudent
from qcrd_core.student.confidence import Calibration, Point
from tests.support.served import write_student
from tests.support.stub_engine import stub_engine
from tests.support.synthetic_run import CONFIG

_CALIBRATION = Calibration(
    scale="log_odds",
    slope=1,
    intercept=0,
    num_questions=300,
    points=(
        Point(min_raw_confidence=0.9, num_answers=100, num_correct=100),
        Point(min_raw_confidence=0.5, num_answers=250, num_correct=200),
    ),
)
_SPEC = {
    "name": "pens",
    "source": {"type": "word_problems", "seed": 0, "num_train": 1, "num_validation": 1,
               "num_test": 1},
    "answer": {"kind": "number", "marker": "The answer is"},
    "prompt": {"instruction": "Solve it."},
}  # fmt: skip


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    folder = write_student(tmp_path_factory.mktemp("run") / "student", calibration=_CALIBRATION)
    (folder.parent / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    spec = DatasetSpec.model_validate(_SPEC)
    (folder.parent / "dataset.json").write_text(spec.model_dump_json())
    return ServedStudent.load(folder, "pens-1", batch_size=8)


@pytest.fixture(scope="module")
def reply(student):
    (found,) = student.answer(["How many pens are in 3 boxes of 4?"])
    return replace(found, answer="7", raw_confidence=0.8)


def _final(student, engine_url, *replies):
    """What is answered in place of each of these replies of the student."""

    async def run():
        escalation = Escalation(
            Teacher(Endpoint(url=engine_url), TeacherRun.of(student)), precision=0.9
        )
        escalation.check(student)
        async with escalation:
            return [await escalation.final(Answered(each, student)) for each in replies]

    return asyncio.run(run())


def test_student_that_is_sure_answers_alone(student, reply):
    with stub_engine() as engine:
        (final,) = _final(student, engine.url, replace(reply, raw_confidence=0.9))
    assert (final.answer, final.answered_by, engine.num_asked) == ("7", "student", 0)


@pytest.mark.parametrize("change", [{}, {"raw_confidence": None}, {"answer": None}], ids=str)
def test_teacher_is_asked_with_the_prompt_of_the_run(student, reply, change):
    with stub_engine(writer=lambda *_: "3 * 4 = 12. The answer is 12.") as engine:
        (final,) = _final(student, engine.url, replace(reply, **change))
    assert (final.answer, final.answered_by, final.confidence) == ("12", "teacher", None)
    assert final.rationale == "3 * 4 = 12."
    (body,) = engine.bodies
    assert (body["model"], body["temperature"]) == ("stub", 0.0)
    asked = "".join(message["content"] for message in body["messages"])
    assert "Solve it." in asked
    assert "How many pens are in 3 boxes of 4?" in asked


@pytest.mark.parametrize("fault", ["drop", 500, 400])
def test_student_answers_and_says_so_while_the_teacher_is_away(student, reply, fault):
    with stub_engine(fault=lambda *_: fault) as engine:
        first, second = _final(student, engine.url, reply, reply)
    assert (first.answer, first.answered_by) == ("7", "student_without_teacher")
    assert first == second
    # Nobody waits for a teacher that has just failed; a refused question says nothing of others.
    assert engine.num_asked == (2 if fault == 400 else 1)


def test_answer_of_the_teacher_that_cannot_be_read_is_none(student, reply):
    with stub_engine(writer=lambda *_: "I do not know.") as engine:
        (final,) = _final(student, engine.url, reply)
    assert (final.answer, final.answered_by) == ("7", "student_without_teacher")


def test_precision_that_validation_cannot_show_is_refused(student):
    # 100 of 100 have a lower end of 96.3%; 200 of 250 of 74.6%.
    assert surest_point(student, 0.96).num_answers == 100
    assert surest_point(student, 0.7).num_answers == 250
    with pytest.raises(ConfigError, match=r"at most 96.3%: 100 of 100 are right \(95% interval"):
        surest_point(student, 0.97)


def test_student_without_confidences_is_refused(tmp_path):
    student = ServedStudent.load(write_student(tmp_path / "s"), "s", batch_size=8)
    with pytest.raises(ConfigError, match="needs a student with confidences; s has none"):
        surest_point(student, 0.9)


def test_student_without_its_run_is_refused(tmp_path):
    student = ServedStudent.load(write_student(tmp_path / "s"), "s", batch_size=8)
    with pytest.raises(ConfigError, match=r"got no config.yaml with dataset.json in"):
        TeacherRun.of(student)


def test_teacher_that_does_not_answer_at_the_start_is_refused(student):
    with stub_engine() as engine:
        url = engine.url
    with pytest.raises(SamplingError, match="must answer like an OpenAI-compatible server"):
        Teacher(Endpoint(url=url), TeacherRun.of(student))
