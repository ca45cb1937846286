"""Stores and runs, looked at: counts, rows by SQL, one question, two runs, exports."""

import json
from dataclasses import replace

import datasets
import pandas as pd
import polars as pl
import pytest
import yaml

from data_schemas import Curation, Predictions, Questions, Rationales, Votes
from qcrd_core.errors import ConfigError, DataError, StoreError
from qcrd_core.inspect.compare import compare_runs
from qcrd_core.inspect.export import export_rows
from qcrd_core.inspect.find import find_rows
from qcrd_core.inspect.question import read_question
from qcrd_core.inspect.summary import bin_votes, summarize
from qcrd_core.inspect.terminal import difference_text, found_text, question_text, summary_text
from qcrd_core.inspect.view import ROW_COLUMNS, View, open_view
from qcrd_core.run.paths import RunPaths
from qcrd_core.store.parts import open_folder
from qcrd_core.store.store import Store
from tests.support.synthetic_run import GENERATION, HOSTILE, RUN_ID, write_synthetic_run

FOLDER = f"datasets/word_problems/rationales/generation={GENERATION}"


@pytest.fixture
def store(tmp_path):
    store = Store(str(tmp_path / "store"), tmp_path / "scratch")
    write_synthetic_run(store)
    return store


@pytest.fixture
def run(store):
    return View(store, RUN_ID)


def _all_rows(store):
    return store.read_table(FOLDER, Rationales)


def test_summary_counts_what_the_tables_hold(store, run):
    rows, votes = _all_rows(store), store.read_table(RunPaths(RUN_ID).votes, Votes)
    summary = summarize(run)
    counts = {(r["source"], r["status"]): 0 for r in summary.counts.iter_rows(named=True)}
    for row in summary.counts.iter_rows(named=True):
        counts[row["source"], row["status"]] += row["num_rows"]
    assert counts["student", "ok"] == 3 * 60
    assert counts["teacher", "failed"] == rows.filter(pl.col("status") == "failed").height > 0
    assert sum(n for (source, _), n in counts.items() if source == "teacher") == rows.height
    assert summary.failures.rows() == [("HTTP 500", counts["teacher", "failed"])]
    assert summary.vote["num_ties"] == votes["is_tie"].sum()
    assert summary.agreement["num_questions"].sum() == votes["agreement"].count()


def test_bin_votes_puts_tenths_where_they_belong_and_one_apart():
    agreement = [0.3, 0.39, 0.7, 1.0, 0.1 + 0.2]
    votes = pl.DataFrame(
        {"agreement": agreement, "is_majority_correct": [True, None, False] + [True] * 2}
    )
    bins = bin_votes(votes, "agreement")
    assert bins["low"].to_list() == pytest.approx([0.3, 0.7, 1.0])
    assert bins["num_questions"].to_list() == [3, 1, 1]
    assert bins["num_with_gold"].to_list() == [2, 1, 1]
    assert bins["num_correct"].to_list() == [2, 0, 1]


def test_rows_asked_with_another_text_are_counted_and_marked(store, run):
    rows = _all_rows(store).filter(pl.col("question_id") == "q0003").head(1)
    old = rows.with_columns(sample_idx=pl.lit(4, pl.Int32), prompt_hash=pl.lit("0" * 16))
    store.write_table(f"{FOLDER}/part-old.parquet", old, Rationales)
    assert summarize(run).num_other_text == 1
    assert read_question(run, "q0003").rows["has_other_text"].sum() == 1


@pytest.mark.parametrize(
    ("where", "same"),
    [
        ("status = 'failed'", pl.col("status") == "failed"),
        ("num_tokens >= 5 AND sample_idx < 2", pl.col("sample_idx") < 2),
        ("is_correct", pl.col("answer") == pl.col("gold_answer")),
    ],
    ids=["enum", "numbers", "derived"],
)
def test_find_rows_returns_the_rows_a_filter_does(store, run, where, same):
    gold = run.questions().select("question_id", "gold_answer").collect()
    wanted = _all_rows(store).join(gold, on="question_id").filter(same)
    found = find_rows(run, f"({where}) AND source = 'teacher'", limit=1000)
    assert found.num_rows == found.rows.height == wanted.height > 0
    assert set(found.rows.columns) == set(ROW_COLUMNS)
    keys = ["question_id", "sample_idx"]
    assert found.rows.select(keys).rows() == wanted.sort(keys).select(keys).rows()


def test_find_rows_page_by_page_is_the_whole(run):
    pages = [
        find_rows(run, "polarity = 'negative'", limit=7, offset=at).rows for at in range(0, 400, 7)
    ]
    whole = find_rows(run, "polarity = 'negative'", limit=10_000).rows
    assert pl.concat(pages).equals(whole)
    assert whole["quality_score"].null_count() == 0


@pytest.mark.parametrize(
    "where",
    ["statu = 1", "status", "num_tokens > 'a'", "a = = b", "(select 1)", "", "text ~ '('",
     "1; drop table rows", "CAST(text AS INT) > 3",
     # These make polars panic, or work for minutes.
     "CAST(margin AS DECIMAL(99, 99)) > 1", "coalesce() = 1", "GREATEST() = 1",
     "+".join(["1"] * 900) + " > margin", "CAST(" * 60 + "margin" + " AS DOUBLE)" * 60 + " > 1",
     "(" * 900],
)  # fmt: skip
def test_find_rows_with_a_bad_expression_is_refused_in_a_sentence(run, where):
    with pytest.raises(ConfigError, match="--where must be a SQL condition") as error:
        find_rows(run, where, limit=5)
    assert "\n" not in str(error.value)


def test_condition_may_hold_long_texts_and_many_words(run):
    texts = " OR ".join(f"text = '{'word (' * 300}'" for _ in range(40))
    assert find_rows(run, texts, limit=5).num_rows == 0


def test_condition_that_fails_within_a_part_is_not_taken_for_damage(store):
    # Without a vote to join, the condition goes down into the reading of the parts.
    whole, where = View(store, None), "CAST(text AS INT) > 3"
    with pytest.raises(ConfigError, match=r"--where must be a SQL condition.* conversion from"):
        find_rows(whole, where, limit=5)
    path = store.part_files(whole.generations[0].folder)[0].path
    content = store.local(path).read_bytes()
    store.local(path).write_bytes(content[:200] + b"damaged" * 90 + content[830:])
    with pytest.raises(DataError, match="must be intact"):
        find_rows(whole, where, limit=5)


def test_a_column_of_runs_is_refused_for_a_store(store):
    with pytest.raises(ConfigError, match="agreement exists only in a run"):
        find_rows(View(store, None), "agreement < 0.5 AND num_tokens > 0", limit=5)


def test_settings_that_are_no_yaml_are_refused_in_a_sentence(store):
    store.write_bytes(f"runs/{RUN_ID}/config.yaml", b"a: [")
    with pytest.raises(StoreError, match="must be valid YAML; got while parsing a flow node"):
        _ = View(store, RUN_ID).settings


def test_prompt_of_a_conversation_holds_its_turns_and_the_system_prompt(store):
    paths = RunPaths(RUN_ID)
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello?"}]
    questions = store.read_table(paths.questions, Questions)
    store.write_table(
        paths.questions, questions.with_columns(messages=pl.lit(json.dumps(turns))), Questions
    )
    settings = yaml.safe_load(store.read_bytes(paths.config))
    settings["teacher"]["system_prompt"] = "Be brief."
    store.write_bytes(paths.config, yaml.safe_dump(settings).encode())
    prompt = read_question(View(store, RUN_ID), "q0001").prompt
    assert prompt == [
        {"role": "system", "content": "Be brief.\n\nBe kind."},
        {"role": "user", "content": "Hello?"},
    ]


def test_question_holds_samples_scores_rounds_and_prompt(run):
    record = read_question(run, "q0001")
    assert record.rows["source"].to_list() == ["teacher"] * 5 + ["student"] * 3
    assert record.vote["num_samples"] == 5
    assert record.prompt == [{"role": "user", "content": "Question: Tom had 1 apples & got 3 more. "
                              "How many apples does Tom have?\nAnswer:"}]  # fmt: skip
    assert record.scores["round"].n_unique() == 4
    text = question_text(record)
    assert "student round 3 sample 0" in text
    with pytest.raises(DataError, match="has no question"):
        read_question(run, "q9999")


def test_texts_for_the_terminal_hold_no_control_characters(store, run):
    rows = _all_rows(store).with_columns(
        text=pl.lit(HOSTILE), rationale=pl.lit(HOSTILE + "\r\x9b2J")
    )
    rows = rows.filter(pl.col("status") == "ok").head(10)
    store.write_table(f"{FOLDER}/part-0.parquet", rows, Rationales)
    texts = [
        summary_text(summarize(run)),
        found_text(find_rows(run, "text like '%script%'", limit=9)),
        question_text(read_question(run, rows["question_id"][0])),
        difference_text(compare_runs(run, run)),
    ]
    assert "<script>" in texts[1]
    for text in texts:
        assert all(len(line) <= 100 for line in text.split("\n"))
        assert not set(text) & {"\x1b", "\x9b", "\x00", "\r", "\u202e"}


def test_compare_names_new_gone_flipped_and_corrected(store, run):
    other = RunPaths("other")
    votes = store.read_table(run.paths.votes, Votes)
    decided = votes.filter("is_majority_correct")
    flip, gone = decided["question_id"][0], decided["question_id"][1]
    is_flip = pl.col("question_id") == flip
    changed = votes.filter(pl.col("question_id") != gone).with_columns(
        majority_answer=pl.when(is_flip).then(pl.lit("-1")).otherwise("majority_answer"),
        is_majority_correct=pl.when(is_flip).then(False).otherwise("is_majority_correct"),
    )
    added = votes.head(1).with_columns(question_id=pl.lit("zzz"))
    store.write_table(other.votes, pl.concat([changed, added]), Votes)
    config = store.read_bytes(run.paths.config).replace(b"num_rounds: 4", b"num_rounds: 6")
    store.write_bytes(other.config, config)
    test = store.read_table(run.paths.predictions("test", 3), Predictions)
    store.write_table(
        other.predictions("test", 5),
        test.with_columns(is_correct=~pl.col("is_correct")),
        Predictions,
    )

    found = compare_runs(run, View(store, "other"))

    change = {c: set(p["question_id"]) for (c,), p in found.questions.group_by("change")}
    assert (change["flipped"], change["gone"], change["new"]) == ({flip}, {gone}, {"zzz"})
    assert found.settings == ["training.num_rounds 4 -> 6"]
    assert found.questions.filter(is_flip)["correctness"].item() == "broken"
    assert found.predictions["correctness"].value_counts().height == 2


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet", ""])
def test_export_writes_the_rows_of_the_condition(run, tmp_path, ending):
    target = tmp_path / f"out{ending}"
    where = "source = 'teacher' AND is_correct"
    wanted = find_rows(run, where, limit=1000).rows
    assert export_rows(run, target, where) == wanted.height > 0
    if ending == "":
        rows = datasets.load_dataset(str(target), cache_dir=str(tmp_path / "cache"))["train"]
        assert "Rationales of" in (target / "README.md").read_text()
        texts = list(rows["text"])
    elif ending == ".jsonl":
        texts = [json.loads(line)["text"] for line in target.read_text().splitlines()]
    else:
        texts = list((pd.read_csv if ending == ".csv" else pd.read_parquet)(target)["text"])
    assert sorted(texts) == sorted(wanted["text"])
    assert not list(tmp_path.glob("_tmp*"))
    with pytest.raises(ConfigError, match="must be a new file or folder"):
        export_rows(run, target, None)


def test_export_without_rows_or_to_a_foreign_ending_is_refused(run, tmp_path):
    with pytest.raises(ConfigError, match="There is nothing to export"):
        export_rows(run, tmp_path / "folder", "false")
    with pytest.raises(ConfigError, match="must end in"):
        export_rows(run, tmp_path / "out.xlsx", None)
    assert not (tmp_path / "folder").exists()


def test_index_of_parts_follows_the_folder(store):
    folder = open_folder(store, FOLDER, Rationales)
    kept = folder.index
    part = kept["path"][0]
    rows = store.read_table(part, Rationales)
    store.delete(part)
    without = open_folder(store, FOLDER, Rationales)
    assert without.index["path"].to_list() == kept["path"].to_list()[1:]
    assert without.scan([rows["question_id"][0]]).collect().is_empty()
    store.write_table(part, rows.head(3), Rationales)
    again = open_folder(store, FOLDER, Rationales)
    assert again.num_rows == without.num_rows + 3
    assert again.scan([rows["question_id"][0]]).collect().equals(rows.head(3))


@pytest.mark.parametrize("damage", ["cut", "foreign", "empty"])
def test_damaged_part_is_a_sentence(store, run, damage):
    part = store.local(open_folder(store, FOLDER, Rationales).index["path"][0])
    content = part.read_bytes()
    part.write_bytes(
        {"cut": content[: len(content) // 2], "empty": b"", "foreign": b"PAR1" * 9}[damage]
    )
    with pytest.raises(DataError, match=r"must be a whole Parquet file.*qcrd validate"):
        summarize(run)


def test_open_view_names_what_is_there(store, tmp_path):
    root = str(store)
    assert open_view(f"{root}/runs/{RUN_ID}/", tmp_path / "scratch").run_id == RUN_ID
    with pytest.raises(StoreError, match=f"Its runs: {RUN_ID}"):
        open_view(f"{root}/runs/absent", tmp_path / "scratch")
    with pytest.raises(StoreError, match="is not a qcrd store"):
        open_view(str(tmp_path / "nothing"), tmp_path / "scratch")
    with pytest.raises(StoreError, match="The target must be a run"):
        _ = open_view(root, tmp_path / "scratch").paths


def test_marks_of_curators_are_joined_and_counted(store, run):
    row = {**Curation.example, "generation": GENERATION, "question_id": "q0002", "sample_idx": 1}
    frame = pl.DataFrame([row], schema=Curation.create_empty().schema)
    store.write_table("datasets/word_problems/curation/part-1.parquet", frame, Curation)
    assert summarize(run).curation == {"reject": 1}
    found = find_rows(run, "mark = 'reject'", limit=5)
    assert found.rows.select("question_id", "sample_idx").rows() == [("q0002", 1)]


def test_rows_of_a_store_come_from_every_generation_and_run(store, run):
    view = replace(run, run_id=None)
    assert find_rows(view, None, limit=1).num_rows == _all_rows(store).height + 3 * 60
    assert "teacher  word_problems" in summary_text(summarize(view))


def test_run_that_has_only_begun_says_so(store):
    config = store.read_bytes(RunPaths(RUN_ID).config)
    store.write_bytes(RunPaths("begun").config, config)

    assert "no rationales yet" in summary_text(summarize(View(store, "begun")))
