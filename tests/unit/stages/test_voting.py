"""From stored samples to labels and candidates, and the sentences for when there are none."""

import polars as pl
import pytest

from data_schemas import Curation, Feedback, Metrics, Questions, Rationales, Votes
from qcrd_core.config.run import RunConfig
from qcrd_core.data.answers import AnswerSpec
from qcrd_core.data.spec import load_spec
from qcrd_core.errors import DataError
from qcrd_core.run.context import RunContext
from qcrd_core.stages.voting import vote_rationales
from qcrd_core.teacher.plan import prompt_hashes
from qcrd_core.vote.candidates import candidates, training_labels
from qcrd_core.vote.curation import read_marks, write_mark
from tests.support.tables import make_questions, make_rationales

SAMPLES = "datasets/word_problems/rationales/generation=abcabcabcabc/part-1.parquet"
# Question a: 3 of 4 say 7, which is right. Question b: all say 9, which is wrong.
ANSWERS = {"a": ["7", "7", "7", "8"], "b": ["9", "9", "9", "9"]}


def _context(folder, answers=ANSWERS, **sections):
    tiny = {"type": "scratch"}
    content = {
        "run": {"name": "a", "store": str(folder / "store"), "scratch": str(folder / "scratch")},
        "data": {"dataset": "word_problems"},
        "teacher": {"model": {"type": "hub", "name": "none"}, "num_samples": 4},
        "discriminator": {"model": tiny},
        "student": {"model": tiny},
    }
    for name, section in sections.items():
        content[name] = {**content.get(name, {}), **section}
    context = RunContext.open(RunConfig.model_validate(content), "run-1")
    gold = {"a": "7", "b": "8", "c": None}
    questions = make_questions([{"question_id": q, "gold_answer": gold[q]} for q in answers])
    hashes = dict(zip(questions["question_id"], prompt_hashes(questions), strict=True))
    store, paths = context.store, context.paths
    store.write_table(paths.questions, questions, Questions)
    store.write_json(paths.environment, {"dataset": "word_problems", "generation": "abcabcabcabc"})
    store.write_json(paths.dataset, load_spec("word_problems").model_dump(mode="json"))
    rows = [
        {"question_id": q, "sample_idx": k, "prompt_hash": hashes[q], **_sample(answer)}
        for q, given in answers.items()
        for k, answer in enumerate(given)
    ]
    store.write_table(SAMPLES, make_rationales(rows), Rationales)
    return context


def _sample(answer):
    if isinstance(answer, dict):
        return answer
    return {"failed": True} if answer == "failed" else {"answer": answer}


def test_vote_rationales_writes_the_votes(tmp_path):
    context = _context(tmp_path)
    vote_rationales(context)
    votes = context.store.read_table(context.paths.votes, Votes)
    assert votes["majority_answer"].to_list() == ["7", "9"]
    assert votes["is_majority_correct"].to_list() == [True, False]


@pytest.mark.parametrize(
    ("label", "labels"),
    [("gold", ["7", "8"]), ("majority", ["7", "9"])],
)
def test_training_labels_are_the_configured_ones(tmp_path, label, labels):
    context = _context(tmp_path, data={"dataset": "word_problems", "label": label})
    vote_rationales(context)
    found = training_labels(context)
    assert found["label"].to_list() == labels
    assert found.columns == ["question_id", "question", "messages", "label"]


def test_training_labels_by_majority_leave_out_questions_without_one(tmp_path):
    answers = {"a": ["7", "7", "7", "8"], "b": ["8", "8", "9", "9"]}
    context = _context(tmp_path, answers, data={"label": "majority"}, voting={"tie": "abstain"})
    vote_rationales(context)
    assert training_labels(context)["question_id"].to_list() == ["a"]


def test_right_answer_that_was_sent_stands_above_the_majority(tmp_path):
    answers = {**ANSWERS, "c": ["1", "2", "3", "9"]}  # all say 9 of b, and there is none for c
    context = _context(tmp_path, answers, data={"label": "majority"}, voting={"tie": "abstain"})
    sent = [{**Feedback.example, "question_id": q, "gold_answer": "8"} for q in "bc"]
    frame = pl.DataFrame(sent, schema=Feedback.create_empty().schema)
    context.store.write_table(context.paths.feedback, frame, Feedback)
    vote_rationales(context)
    labels = training_labels(context)
    assert dict(labels.select("question_id", "label").iter_rows()) == {"a": "7", "b": "8", "c": "8"}
    rows, counts = candidates(context, 0)
    assert counts["num_teacher_positives"] == 3  # of a alone
    assert rows.filter(question_id="b")["polarity"].unique().to_list() == ["negative"]
    # The vote itself stays what it was.
    votes = context.store.read_table(context.paths.votes, Votes)
    assert votes["majority_answer"].to_list() == ["7", "9", None]


@pytest.mark.parametrize(
    ("minority", "num_negatives"), [(True, 1), (False, 0)], ids=["kept", "dropped"]
)
def test_candidates_hold_the_minority_where_it_is_asked_for(tmp_path, minority, num_negatives):
    context = _context(tmp_path, negatives={"teacher_minority": minority})
    vote_rationales(context)
    rows, counts = candidates(context, 0)
    assert counts["num_teacher_negatives"] == num_negatives
    assert counts["num_teacher_positives"] + num_negatives == rows.height
    assert rows["rationale"].null_count() == 0


# The student says 7 (right) of a, 9 (the majority's wrong answer) of b, nothing readable of c.
VERIFIED = {"a": "7", "b": "9", "c": None}


def _write_students(context, **more):
    rows = [
        {"question_id": q, "sample_idx": 0, "source": "student", "round": 1, "answer": answer}
        for q, answer in VERIFIED.items()
    ]
    part = f"{context.paths.negatives(1)}/part-1.parquet"
    rows = [{**row, **more} for row in rows]
    context.store.write_table(part, make_rationales(rows), Rationales)


def _verified(folder, verify, label):
    answers = {**ANSWERS, "c": ["1", "1", "2", "2"]}
    context = _context(
        folder,
        answers,
        data={"label": label},
        negatives={"verify": verify, "teacher_minority": False},
    )
    vote_rationales(context)
    _write_students(context)
    kept, counts = candidates(context, 1)
    student = kept.filter(source="student").sort("question_id")
    signs = {"positive": "+", "negative": "-"}
    shown = "".join(q + signs[p] for q, p in student.select("question_id", "polarity").rows())
    return shown, counts


@pytest.mark.parametrize(
    ("verify", "label", "expected"),
    [
        ("none", "gold", "a-b-c-"),
        ("drop", "gold", "b-c-"),
        ("promote", "gold", "a+b-c-"),
        ("drop", "majority", "c-"),
        ("promote", "majority", "a+b+c-"),
    ],
)
def test_candidates_verify_the_students_rationales_by_the_label(tmp_path, verify, label, expected):
    shown, counts = _verified(tmp_path, verify, label)
    assert shown == expected
    assert counts["num_student_positives"] == expected.count("+")
    assert counts["num_student_negatives"] == expected.count("-")
    assert counts["num_student_right_dropped"] == 3 - len(expected) // 2
    assert counts["num_teacher_positives"] == 7


@pytest.mark.parametrize("verify", ["none", "drop", "promote"])
def test_candidates_leave_out_students_rationales_that_were_cut(tmp_path, verify):
    answers = {**ANSWERS, "c": ["1", "1", "2", "2"]}
    context = _context(tmp_path, answers, negatives={"verify": verify})
    vote_rationales(context)
    _write_students(context, finish_reason="length")
    kept, counts = candidates(context, 1)
    # Of a and b the answer was read before the cut; c was cut before one.
    assert counts["num_student_cut_dropped"] == 1
    assert "c" not in kept.filter(source="student")["question_id"]


@pytest.mark.parametrize("target", ["rationale", "rationale_and_answer"])
def test_candidates_end_with_their_own_answer_if_it_is_learnt(tmp_path, target):
    context = _context(tmp_path, student={"explain_target": target})
    vote_rationales(context)
    kept, _ = candidates(context, 0)
    texts = dict(kept.filter(question_id="a").select("sample_idx", "rationale").rows())
    learnt = {index: f" The answer is {8 if index == 3 else 7}" for index in range(4)}
    more = learnt if target == "rationale_and_answer" else dict.fromkeys(range(4), "")
    for index, text in texts.items():
        assert text == f"Because.{learnt[index]}.{more[index]}"


def test_candidates_count_rationales_without_a_text(tmp_path):
    context = _context(tmp_path)
    vote_rationales(context)
    first = (pl.col("question_id") == "a") & (pl.col("sample_idx") == 0)
    blank = pl.when(first).then(pl.lit(" ")).otherwise("rationale").alias("rationale")
    rows = context.store.read_table(SAMPLES, Rationales)
    context.store.write_table(SAMPLES, rows.with_columns(blank), Rationales)
    kept, counts = candidates(context, 0)
    assert counts["num_rationales_without_text"] == 1
    assert kept.filter(question_id="a", polarity="positive").height == 2


def test_vote_rationales_without_any_answer_shows_the_first_error(tmp_path):
    context = _context(tmp_path, {"a": ["failed", "failed", None, None]})
    message = (
        r"None of the 4 .*\(word_problems\)\. The first error is: HTTP 500\. The samples are kept"
    )
    with pytest.raises(DataError, match=message):
        vote_rationales(context)
    assert not context.store.exists(context.paths.votes)


def test_vote_rationales_without_any_positive_names_the_settings(tmp_path):
    context = _context(tmp_path, {"a": ["7", "7", "8", "8"]}, voting={"tie": "abstain"})
    with pytest.raises(
        DataError,
        match=r"None of the 4 rationales is positive, .*\(voting\.positives is .*1 votes abstained",
    ):
        vote_rationales(context)


def test_marks_of_curators_decide_votes_and_polarity_and_are_reported(tmp_path):
    answers = {"a": ["7", "7", "8", "8"], "b": ["9", "9", "9", "8"]}
    context = _context(tmp_path, answers, voting={"tie": "abstain"})
    for key, mark in ((("abcabcabcabc", "a", 3), "reject"), (("abcabcabcabc", "b", 3), "keep")):
        write_mark(context.store, "word_problems", key, mark, None)
    marks = read_marks(context.store, "word_problems", "abcabcabcabc")
    context.store.write_table(context.paths.curation, marks, Curation)

    vote_rationales(context)

    votes = context.store.read_table(context.paths.votes, Votes)
    assert votes["majority_answer"].to_list() == ["7", "9"]  # the tie of a is broken
    rows, _ = candidates(context, 0)
    polarity = {
        (q, k): p for q, k, p in rows.select("question_id", "sample_idx", "polarity").rows()
    }
    assert ("a", 3) not in polarity
    assert (polarity["a", 2], polarity["b", 3]) == ("negative", "positive")
    metrics = context.store.read_table(context.paths.metrics, Metrics)
    counts = dict(metrics.filter(pl.col("stage") == "data").select("name", "value").rows())
    assert counts == {"num_rejected_by_curator": 1, "num_kept_by_curator": 1}


def test_label_with_a_rationale_takes_the_one_that_a_curator_keeps(tmp_path):
    target = {"model": {"type": "scratch"}, "target": "rationale_and_label"}
    context = _context(tmp_path, {"a": ["8", "7", "7", "7"]}, student=target)
    write_mark(context.store, "word_problems", ("abcabcabcabc", "a", 0), "keep", None)
    found = read_marks(context.store, "word_problems", "abcabcabcabc")
    context.store.write_table(context.paths.curation, found, Curation)
    vote_rationales(context)
    first = context.store.read_table(SAMPLES, Rationales).filter(sample_idx=0)["rationale"][0]
    assert training_labels(context)["label"][0].startswith(f"{first} The answer is")


def test_verified_answers_are_voted_by_result_and_learnt_as_the_first_sample_writes_them(tmp_path):
    given = [("10 km", "10000"), ("10000 m", "10000"), ("about 10", None), ("7 m", "7")]
    samples = [{"answer": answer, "answer_raw": raw} for raw, answer in given]
    samples[2] |= {"answer_raw": None, "error": "The verifier failed: it took longer than 5 s"}
    student = {"model": {"type": "scratch"}, "explain_target": "rationale_and_answer"}
    context = _context(tmp_path, {"a": samples}, data={"label": "majority"}, student=student)
    answer = AnswerSpec.model_validate({"kind": "verifier", "verifier": "units:canonical"})
    spec = load_spec("word_problems").model_copy(update={"answer": answer})
    context.store.write_json(context.paths.dataset, spec.model_dump(mode="json"))

    numbers = vote_rationales(context)

    assert (numbers["num_unparsable"], numbers["num_verifier_failed"]) == (1, 1)
    assert training_labels(context)["label"].to_list() == ["10 km"]
    ends = [text.rsplit("The answer is ", 1)[1] for text in candidates(context, 0)[0]["rationale"]]
    assert ends[:2] == ["10 km", "10000 m"]


def test_vote_measures_the_parts_of_its_majorities(tmp_path):
    given = {"a": ["x", "x, y", "y", "x, y, z"]}
    context = _context(tmp_path, given, voting={"tie": "parts"})
    answer = AnswerSpec(kind="labels", labels=("x", "y", "z"))
    spec = load_spec("word_problems").model_copy(update={"answer": answer})
    context.store.write_json(context.paths.dataset, spec.model_dump(mode="json"))
    questions = make_questions([{"question_id": "a", "gold_answer": "x, z"}])
    context.store.write_table(context.paths.questions, questions, Questions)

    numbers = vote_rationales(context)

    votes = context.store.read_table(context.paths.votes, Votes)
    assert votes["majority_answer"].to_list() == ["x, y"]  # each in three of four
    # x is right, y and z are wrong: 2 of 2 + 1 + 1, and the mean of 1, 0 and 0.
    assert (numbers["micro_f1"], numbers["macro_f1"]) == (0.5, pytest.approx(1 / 3))
