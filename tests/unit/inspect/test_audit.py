"""Audits on tables small enough to count by hand, and on a whole synthetic run."""

import itertools
import random
from dataclasses import replace

import polars as pl
import pytest

from qcrd_core.errors import DataError
from qcrd_core.inspect.audit.audit import audit
from qcrd_core.inspect.audit.charts import audit_charts
from qcrd_core.inspect.audit.lengths import find_lengths
from qcrd_core.inspect.audit.page import audit_text, render, write_audit
from qcrd_core.inspect.audit.settled import replay_settled
from qcrd_core.inspect.audit.similar import find_duplicates, find_leakage
from qcrd_core.inspect.audit.steps import Steps, find_steps
from qcrd_core.inspect.audit.thoughts import Thoughts, find_thoughts
from qcrd_core.inspect.audit.votes import Sweep, _knee, sweep_samples
from qcrd_core.inspect.view import View
from qcrd_core.store.store import Store
from qcrd_core.vote.majority import pseudo_label_precision, vote
from tests.support.synthetic_run import GENERATION, RUN_ID, write_synthetic_run
from tests.support.tables import make_questions, make_rationales


def _rows(answers):
    return make_rationales(
        [
            {"question_id": question_id, "sample_idx": k, "answer": answer}
            for question_id, given in answers.items()
            for k, answer in enumerate(given)
        ]
    )


@pytest.fixture
def run(tmp_path):
    store = Store(str(tmp_path / "store"), tmp_path / "scratch")
    write_synthetic_run(store)
    return View(store, RUN_ID)


def test_precision_counts_decided_votes_at_least_so_united():
    answers = {
        "a": ["1"] * 5,
        "b": ["2", "2", "2", "3", "4"],
        "c": ["5", "5", "6", "6"],
        "d": ["7"] * 5,
    }
    questions = make_questions(
        [
            {"question_id": q, "gold_answer": gold}
            for q, gold in zip("abcd", ["1", "9", "5", None], strict=True)
        ]
    )
    found = pseudo_label_precision(vote(_rows(answers), questions, "abstain"))
    by_tenth = {round(10 * row[0]): row[1:] for row in found.rows()}
    assert by_tenth[0] == (0.75, 0.5, 3)  # c abstained, d has no gold
    assert by_tenth[6] == (0.75, 0.5, 3)
    assert by_tenth[7] == (0.5, 1.0, 2)
    assert by_tenth[10] == (0.5, 1.0, 2)


def test_steps_counts_false_equations_by_the_answer():
    texts = {0: "1 + 1 = 2.", 1: "1 + 1 = 3, so 2.", 2: "1 + 1 = 3.", 3: "Three."}
    rows = make_rationales(
        [
            {"question_id": "a", "sample_idx": k, "answer": "2" if k < 2 else "3", "text": text}
            for k, text in texts.items()
        ]
        + [{"question_id": "no gold", "sample_idx": 0, "answer": "1", "text": "1 + 1 = 1."}]
    )
    questions = make_questions(
        [
            {"question_id": "a", "gold_answer": "2"},
            {"question_id": "no gold", "gold_answer": None},
        ]
    )
    found = find_steps(rows, questions)
    assert found == Steps(4, 4, num_right=2, num_right_false=1, num_wrong_false=1)
    assert found.summary.endswith("and 1 of 2 with a wrong one write a false equation")


def test_steps_of_many_rationales_are_those_of_some_of_them(monkeypatch):
    monkeypatch.setattr("qcrd_core.inspect.audit.steps._MOST_CHECKED", 3)
    found = find_steps(
        _rows({"a": ["2"] * 8}), make_questions([{"question_id": "a", "gold_answer": "2"}])
    )
    assert (found.num_rationales, found.num_checked) == (8, 3)
    assert found.summary.endswith(", of a sample of all")


def test_sweep_is_of_drawn_samples_so_that_the_order_of_a_file_does_not_matter():
    rights = {f"q{i:03d}": ["1"] * 6 + ["2", "3", "4", "5"] for i in range(200)}
    reverse = {name: given[::-1] for name, given in rights.items()}
    questions = make_questions([{"question_id": q, "gold_answer": "1"} for q in rights])
    for answers in (rights, reverse):
        rows = sweep_samples(_rows(answers), questions).rows
        accuracy = dict(rows.select("k", "accuracy").rows())
        assert accuracy[1] == pytest.approx(0.6, abs=0.05)
        assert accuracy[10] == 1.0
        assert rows["num_tokens"].to_list() == [5.0 * k for k in range(1, 11)]


def test_sweep_without_gold_measures_nothing():
    found = sweep_samples(_rows({"a": ["1", "2"]}), make_questions([{"question_id": "a"}]))
    assert found.rows.is_empty()
    assert found.knee is None


@pytest.mark.parametrize(
    ("values", "knee"),
    [
        ([0.5, 0.7, 0.9, 0.92, 0.93], 3),
        ([0.5, 0.9, 0.9, 0.9], 2),
        ([0.5, 0.4, 0.3], None),
        ([0.5, 0.6], None),
    ],
)
def test_knee_is_where_more_samples_stop_paying(values, knee):
    assert _knee(values) == knee


def test_duplicates_are_counted_within_a_question():
    texts = [
        "First add 2 and 3 to get 5 in all, then stop.",
        "first  add 2 and 3, to get 5 in all. Then STOP!",  # exact but for its signs
        "First add 2 and 3 to get 5 in all, then stop here.",  # near
        "First add 2 and 4 to get 6 in all, then stop.",  # other numbers
    ]
    rows = [{"question_id": "a", "rationale": text} for text in texts]
    rows.append({"question_id": "b", "rationale": texts[0]})
    found = find_duplicates(pl.DataFrame(rows))
    assert (found.num_rationales, found.num_exact, found.num_near) == (5, 1, 1)


def test_leakage_finds_the_same_question_in_train_and_not_its_like():
    train = (
        "Ann picked 7 plums and 12 pears in the garden of her aunt. How many fruits did Ann pick?"
    )
    rows = [
        {"question_id": "t1", "question": train},
        {"question_id": "t2", "question": "Something else is asked here about trains and cars."},
        {"question_id": "exact", "split": "test", "question": train.upper().replace(".", "  .")},
        {"question_id": "near", "split": "validation", "question": train.replace("ts", "t")},
        {"question_id": "numbers", "split": "test", "question": train.replace("12", "4 to 9")},
        {"question_id": "new", "split": "test", "question": "How tall is the tower in the town?"},
    ]  # fmt: skip
    found = find_leakage(make_questions(rows))
    assert found.num_held_out == 4
    ids = found.found.select("question_id", "train_question_id").rows()
    assert ids == [("exact", "t1"), ("near", "t1")]
    assert found.found["similarity"].to_list()[0] == 1.0


def test_leakage_is_found_where_every_run_of_words_is_common():
    story = "Tom had {} apples and got {} more apples today. How many apples does Tom have now?"
    rows = [{"question_id": f"t{i}", "question": story.format(i, i + 1)} for i in range(300)]
    rows.append({"question_id": "same", "split": "test", "question": story.format(250, 251)})
    found = find_leakage(make_questions(rows)).found
    assert found.row(0) == ("same", "test", "t250", 1.0)


def test_audit_of_a_run_is_said_and_written(run):
    found = audit(run)
    text, page = audit_text(found), render(found)
    assert text.startswith(f"{RUN_ID}: 300 rationales of 60 questions")
    assert "of 120 held-out questions" in text
    assert page.count("<svg") == 5
    assert "<script" not in page
    assert run.store.read_bytes(write_audit(run, found)).decode() == page


def test_charts_of_rationales_without_gold_and_token_counts_are_left_out(run):
    found = audit(run)
    nothing = Sweep(found.sweep.rows.head(0), None)
    bins = found.bins.with_columns(num_with_gold=pl.lit(0))
    precision = found.precision.with_columns(precision=pl.lit(None, pl.Float64))
    bare = replace(found, sweep=nothing, bins=bins, precision=precision)
    assert list(audit_charts(bare)) == ["similar"]
    assert "Not measured, because there are no gold answers." in render(bare)
    assert "no engine counted tokens" in render(bare)


def test_leakage_is_that_of_comparing_every_pair():
    source = random.Random(0)
    words = [f"w{number}" for number in range(30)]
    texts = [" ".join(source.choices(words, k=12)) for _ in range(150)]
    # Most are changed copies of others: some near, some not.
    texts += [_changed(source.choice(texts), source) for _ in range(450)]
    splits = ["test" if number % 4 == 0 else "train" for number in range(len(texts))]
    rows = [
        {"question_id": f"q{n:03}", "split": split, "question": text}
        for n, (split, text) in enumerate(zip(splits, texts, strict=True))
    ]
    runs = [frozenset(itertools.pairwise(text.split())) for text in texts]
    expected = {}
    for n, split in enumerate(splits):
        pairs = [(len(runs[n] & runs[m]) / len(runs[n] | runs[m]), -m)
                 for m, other in enumerate(splits) if other == "train"]  # fmt: skip
        if split == "test" and max(pairs)[0] >= 0.8:
            expected[f"q{n:03}"] = (f"q{-max(pairs)[1]:03}", max(pairs)[0])

    found = find_leakage(make_questions(rows)).found

    columns = found.select("question_id", "train_question_id", "similarity").rows()
    assert {held: (train, value) for held, train, value in columns} == expected
    assert len(expected) > 20


def _changed(text, source):
    words = text.split()
    for _ in range(source.randrange(3)):
        words[source.randrange(len(words))] = "changed"
    return " ".join(words)


def test_audit_without_held_out_questions_says_that_leakage_is_not_measured(run):
    found = audit(run)
    without = replace(found, leakage=find_leakage(make_questions([{"question_id": "a"}])))
    assert "leakage     not measured" in audit_text(without)
    assert "Leakage not measured" in render(without)


def test_audit_of_a_store_votes_over_its_one_generation(run):
    found = audit(View(run.store, None))
    assert found.folder.endswith(GENERATION)
    assert found.votes.equals(audit(run).votes)
    run.store.write_json("datasets/word_problems/rationales/generation=abc/generation.json", {})
    with pytest.raises(DataError, match="which generation to audit"):
        audit(View(run.store, None))
    assert audit(View(run.store, None), GENERATION).num_rationales == 300


def test_thoughts_that_damaged_rationales_are_counted_with_what_to_do():
    rows = make_rationales(
        [
            {"question_id": "q", "sample_idx": 0, "answer": "1"},
            {"question_id": "q", "sample_idx": 1, "answer": "1", "rationale": "<think>\nHmm"},
            {"question_id": "q", "sample_idx": 2, "answer": "1", "rationale": "Hm.\n</think>\nSo"},
            {"question_id": "q", "sample_idx": 3, "answer": "1", "rationale": None},
            {"question_id": "q", "sample_idx": 4, "rationale": None},
        ]
    )
    cut = rows.head(1).with_columns(status=pl.lit("thought_only"), rationale=pl.lit(None))
    found = find_thoughts(pl.concat([rows, cut], how="vertical_relaxed"))
    assert found == Thoughts(6, num_with_tags=2, num_bare=1, num_thought_only=1)
    assert [problem.partition(":")[0] for problem in found.problems] == [
        "Think tags in a rationale",
        "No rationale beside an answer",
        "A thought without an answer",
    ]


def test_audit_of_a_run_without_thoughts_has_no_problem_with_them(run):
    found = audit(run)
    assert found.thoughts.problems == []
    assert "thoughts    0 rationales with think tags" in audit_text(found)
    assert "0 rationales with think tags" in render(found)


@pytest.mark.parametrize(
    ("num_long", "settings", "suggests"),
    [
        (3, {}, True),
        (2, {}, False),
        (3, {"teacher": {"condense": {"max_tokens": 8}}}, False),
        (3, {"student": {"max_target_tokens": 512}}, False),
    ],
)
def test_condensing_is_suggested_if_more_than_a_fifth_is_too_long(num_long, settings, suggests):
    texts = pl.Series(["x" * 1025] * num_long + ["x" * 1024] * (10 - num_long))
    found = find_lengths(texts, settings)
    assert ("teacher.condense.max_tokens" in " ".join(found.problems)) == suggests


def test_audit_says_how_many_rationales_are_too_long(run):
    found = audit(run)
    assert "lengths     about 0% of the rationales are longer than" in audit_text(found)
    assert "About 0% of the rationales" in render(found)


def test_replay_of_agreeing_samples_needs_the_first_wave_alone():
    questions = make_questions([{"question_id": q, "gold_answer": "1"} for q in "abcd"])
    rows = _rows({"a": ["1"] * 10, "b": ["1"] * 10, "c": ["2"] * 10, "d": ["1"]})
    found = replay_settled(rows, questions)
    # Three of ten samples, one vote of three wrong, d has too few samples.
    assert found["bound"].to_list() == [0.05, 0.1, 0.2]
    assert found["changed"].to_list() == [0.0] * 3
    assert found["cost"].to_list() == pytest.approx([0.3] * 3)
    assert found["accuracy"].to_list() == pytest.approx([2 / 3] * 3)


def test_replay_of_split_samples_needs_all_and_changes_nothing():
    questions = make_questions([{"question_id": "a", "gold_answer": None}])
    found = replay_settled(_rows({"a": [str(k) for k in range(10)]}), questions)
    assert found.select("cost", "changed", "accuracy").rows() == [(1.0, 0.0, None)] * 3


def test_replay_of_two_samples_is_empty():
    questions = make_questions([{"question_id": "a"}])
    assert replay_settled(_rows({"a": ["1", "1"]}), questions).is_empty()
