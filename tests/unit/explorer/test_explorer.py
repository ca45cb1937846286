"""Pages of the explorer: what they show, what they refuse, what they never run."""

import json
import re
from html import unescape

import polars as pl
import pytest
import yaml
from starlette.testclient import TestClient

from data_schemas import Curation, Metrics, Predictions, Rationales, Votes
from explorer.app import make_app
from explorer.data import Explorer
from explorer.pages import condition, highlighted
from qcrd_core.errors import StoreError
from qcrd_core.inspect.question import read_question
from qcrd_core.inspect.terminal import question_text
from qcrd_core.inspect.validate import validate_store
from qcrd_core.inspect.view import View
from qcrd_core.registry.registry import promote, register
from qcrd_core.run.paths import RunPaths
from qcrd_core.store.store import Store
from qcrd_core.vote.curation import write_mark
from tests.support.registered import complete_run
from tests.support.synthetic_run import GENERATION, HOSTILE, RUN_ID, write_synthetic_run

RUN = f"/runs/{RUN_ID}"
FOLDER = f"datasets/word_problems/rationales/generation={GENERATION}"
MARK = {
    "generation": GENERATION, "question_id": "q0002", "sample_idx": "1", "mark": "reject",
    "comment": "<b>no</b>", "back": f"{RUN}/question/q0002?at=3",
}  # fmt: skip
OURS = {"origin": "http://127.0.0.1:8400"}


@pytest.fixture
def store(tmp_path):
    store = Store(str(tmp_path / "store"), tmp_path / "scratch")
    write_synthetic_run(store)
    rows = store.read_table(FOLDER, Rationales).filter(pl.col("question_id") == "q0000")
    hostile = rows.with_columns(
        text=pl.when(pl.col("status") != "failed").then(pl.lit(HOSTILE)),
        rationale=pl.when(pl.col("status") != "failed").then(pl.lit(HOSTILE)),
        reasoning=pl.lit(HOSTILE),
    )
    (part,) = [
        file.path for file in store.part_files(FOLDER)
        if "q0000" in set(store.read_table(file.path, Rationales)["question_id"])
    ]  # fmt: skip
    others = store.read_table(part, Rationales).filter(pl.col("question_id") != "q0000")
    store.write_table(part, pl.concat([hostile, others]), Rationales)
    return store


@pytest.fixture
def client(store, tmp_path):
    app = make_app(Explorer(str(store), tmp_path / "scratch"))
    with TestClient(app, base_url="http://127.0.0.1:8400", follow_redirects=False) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/", RUN_ID),
        (RUN, "Student, test"),
        (RUN, 'of 4</div><div class="note">rounds; 300 samples'),
        (RUN, "?where=vote_count+%3D+5"),
        (f"{RUN}/rows", "480</strong> rationales of 60 questions"),
        (f"{RUN}/rows?source=student&page=3", "page 4 of 8"),
        (f"{RUN}/rows?where=agreement+%3C+0.5+AND+is_correct", "rationales of"),
        (f"{RUN}/question/q0001", "Tom had 1 apples &amp; got 3 more."),
        (f"{RUN}/answers?correct=wrong", "answers of the student of round 3"),
        ("/static/explorer.js", "keydown"),
        ("/report.css", "--tone-0"),
    ],
)
def test_page_shows_what_it_is_for(client, path, shown):
    answer = client.get(path)
    assert answer.status_code == 200
    assert shown in answer.text


@pytest.mark.parametrize(
    "path", [f"{RUN}/rows", f"{RUN}/question/q0000", f"{RUN}/rows?text=script"]
)
def test_hostile_text_is_shown_and_never_markup(client, path):
    answer = client.get(path)
    assert "<script>document" not in answer.text
    assert "<img src=x" not in answer.text
    assert not set(answer.text) & {"\x1b", "\x00", "\u202e"}
    assert "<script>document.title='owned'</script>" in unescape(answer.text)
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert "unsafe-inline" not in answer.headers["content-security-policy"]


def test_pages_hold_no_inline_script_or_style_that_the_policy_would_stop(client):
    for path in ("/", RUN, f"{RUN}/rows", f"{RUN}/question/q0001", f"{RUN}/answers"):
        text = client.get(path).text
        assert not re.search(r"<script(?! src=)|<style| style=| on\w+=\"", text), path


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        (f"{RUN}/rows?where=statu+%3D+1", 400, "unknown column statu"),
        (f"{RUN}/rows?where=1);+drop+table+x", 400, "must be a SQL condition"),
        (f"{RUN}/rows?text='%3B--", 200, "No rationale meets these conditions"),
        ("/runs/absent", 404, "has no run 'absent'"),
        ("/runs/..%2F..%2Fetc/rows", 404, "Not Found"),
        (f"{RUN}/question/q9999", 404, "has no question 'q9999'"),
        ("/compare?run=absent&run=gone", 404, "has no run 'absent'"),
        ("/static/..%2Fapp.py", 404, ""),
    ],
)
def test_what_is_not_there_is_a_sentence(client, path, status, said):
    answer = client.get(path)
    assert answer.status_code == status
    assert said in unescape(answer.text)


@pytest.mark.parametrize("name", ["config.yaml", "environment.json", "result.json"])
def test_damaged_run_does_not_hide_the_others(client, store, name):
    store.write_bytes("runs/broken/config.yaml", b"run: {}")
    store.write_bytes(f"runs/broken/{name}", b"\xff{")
    page = client.get("/")
    assert page.status_code == 200
    assert RUN_ID in page.text
    assert "broken" in page.text


def test_another_host_name_is_refused(client):
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", ""], ids=["foreign", "null", "none"]
)
def test_mark_from_another_page_is_refused(client, store, origin):
    assert client.post(f"{RUN}/mark", data=MARK, headers={"origin": origin}).status_code == 403
    assert not store.exists("datasets/word_problems/curation")


def test_policy_lets_a_browser_say_that_a_mark_is_from_our_page(client):
    # Chromium sends `Origin: null` with forms of a page under no-referrer.
    assert client.get(RUN).headers["referrer-policy"] == "same-origin"


def test_mark_is_written_shown_and_counted(client, store):
    answer = client.post(f"{RUN}/mark", data=MARK, headers=OURS)
    assert (answer.status_code, answer.headers["location"]) == (303, MARK["back"])
    marks = store.read_table("datasets/word_problems/curation", Curation)
    assert marks.select("question_id", "sample_idx", "mark").rows() == [("q0002", 1, "reject")]
    assert "&lt;b&gt;no&lt;/b&gt;" in client.get(f"{RUN}/question/q0002").text
    assert "1</strong> rationales of 1 questions" in client.get(f"{RUN}/rows?mark=reject").text
    before = store.read_table(FOLDER, Rationales)
    client.post(f"{RUN}/mark", data={**MARK, "mark": "none"}, headers=OURS)
    assert "No rationale meets these" in client.get(f"{RUN}/rows?mark=reject").text
    assert store.read_table(FOLDER, Rationales).equals(before)


def _marking(page, row):
    """What the buttons of a row of the table send, by their label."""
    form = re.findall(r'<form method="post".*?</form>', page, re.DOTALL)[row]
    fields = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form))
    buttons = re.findall(r'<button name="mark" value="(\w+)"[^>]*>(\w+)<', form)
    return {
        label: {**{name: unescape(value) for name, value in fields.items()}, "mark": mark}
        for mark, label in buttons
    }


def test_table_marks_a_row_keeps_its_comment_and_takes_the_mark_back(client):
    client.post(f"{RUN}/mark", data={**MARK, "mark": "none"}, headers=OURS)
    address = f"{RUN}/rows?where=question_id+%3D+'q0002'+AND+sample_idx+%3D+1&source=teacher"
    sent = _marking(client.get(address).text, 0)["keep"]
    answer = client.post(f"{RUN}/mark", data=sent, headers=OURS)
    assert answer.headers["location"].endswith("source=teacher#row_1")
    again = _marking(client.get(answer.headers["location"]).text, 0)
    assert again["keep"]["mark"] == "none"
    assert again["reject"]["comment"] == "<b>no</b>"


def test_students_rows_have_no_mark_since_no_later_run_has_them(client):
    assert "<button name" not in client.get(f"{RUN}/rows?source=student").text


@pytest.mark.parametrize(
    "change",
    [
        {"mark": "perhaps"}, {"generation": ""}, {"generation": "0" * 16},
        {"question_id": "q9999"}, {"sample_idx": "x"}, {"sample_idx": "-1"}, {"sample_idx": "99"},
        {"sample_idx": "9" * 5000}, {"sample_idx": "01"},
    ],
    ids=lambda c: f"{next(iter(c))}={next(iter(c.values()))[:4]}",
)  # fmt: skip
def test_mark_that_is_none_is_refused(client, store, change):
    assert client.post(f"{RUN}/mark", data={**MARK, **change}, headers=OURS).status_code == 400
    assert not store.exists("datasets/word_problems/curation")


def test_mark_never_leads_to_another_site(client):
    data = {**MARK, "back": "https://evil.example//evil.example/x"}
    place = client.post(f"{RUN}/mark", data=data, headers=OURS).headers["location"]
    assert place.startswith("/")
    assert not place.startswith("//")


def test_neighbours_lead_through_the_filtered_questions(client):
    listed = client.get(f"{RUN}/rows?correct=wrong&source=teacher").text
    first = unescape(re.search(r'data-href="([^"]+)"', listed)[1])
    seen, address = [], first
    while address is not None:
        text = client.get(address).text
        seen.append(re.search(r"question/(q\d+)", address)[1])
        found = re.search(r'<a href="([^"]+)" rel="next"', text)
        address = unescape(found[1]) if found else None
    assert seen == sorted(set(seen))
    count = int(re.search(r"rationales of (\d+) questions", listed)[1])
    assert len(seen) == count > 3
    assert 'rel="prev"' in text


def test_changed_store_is_shown_at_once(client, store):
    assert "480</strong>" in client.get(f"{RUN}/rows").text
    store.delete(store.part_files(FOLDER)[0].path)
    assert "480</strong>" not in client.get(f"{RUN}/rows").text


def test_mark_leaves_lists_that_do_not_ask_for_marks_as_they_are(store, tmp_path):
    explorer = Explorer(str(store), tmp_path / "scratch")
    view = explorer.view(RUN_ID)
    conditions = ("source = 'teacher'", "mark = 'reject'")
    before = [explorer.keys(view, where) for where in conditions]
    write_mark(store, "word_problems", (GENERATION, "q0002", 1), "reject", None)
    after = [explorer.keys(view, where) for where in conditions]
    assert after[0] is before[0]
    assert (before[1].height, after[1].height) == (0, 1)


def test_lists_are_kept_up_to_a_size(store, tmp_path, monkeypatch):
    explorer = Explorer(str(store), tmp_path / "scratch")
    view = explorer.view(RUN_ID)
    conditions = ("source = 'teacher'", "source = 'student'")
    monkeypatch.setattr("explorer.data._KEPT_BYTES", 1)
    kept = [explorer.keys(view, where) for where in conditions]
    assert explorer.keys(view, conditions[1]) is kept[1]
    assert explorer.keys(view, conditions[0]) is not kept[0]


def test_condition_joins_choices_and_quotes_text():
    query = {"source": "teacher", "correct": "wrong", "text": "it's", "where": "1 = 1", "mark": "x"}
    assert condition(query) == (
        "source = 'teacher' AND NOT is_correct AND strpos(lower(text), lower('it''s')) > 0 "
        "AND (1 = 1)"
    )
    assert condition({}) is None


def test_highlighted_marks_the_last_place_of_the_answer():
    assert highlighted("3 <b> is 3.", "3") == '3 &lt;b&gt; is <mark class="answer">3</mark>.'
    assert highlighted("none", "7") == "none"


def test_highlighted_marks_the_result_of_a_false_step():
    shown = highlighted("27 - 5 = 23. 22 / 2 = 11.", "11")
    assert shown == (
        '27 - 5 = <mark class="false">23</mark>. 22 / 2 = <mark class="answer">11</mark>.'
    )


def _answer_alike(store, text):
    """Give all samples of question q0003 the same text and the right answer, 6."""
    for file in store.part_files(FOLDER):
        rows = store.read_table(file.path, Rationales)
        is_it = pl.col("question_id") == "q0003"
        changed = {"text": text, "rationale": text, "answer": "6", "status": "ok", "error": None}
        values = {
            name: pl.when(is_it).then(pl.lit(value)).otherwise(pl.col(name).cast(pl.String))
            for name, value in changed.items()
        }
        store.write_table(file.path, Rationales.cast(rows.with_columns(**values)), Rationales)


def test_question_says_why_a_verifier_failed_and_that_a_majority_is_made_of_parts(client, store):
    for file in store.part_files(FOLDER):
        rows = store.read_table(file.path, Rationales)
        silent = rows.with_columns(
            status=pl.lit("no_answer"),
            text=pl.lit("It is 6."),
            answer=None,
            error=pl.lit("The verifier failed: too slow"),
        )
        store.write_table(file.path, Rationales.cast(silent), Rationales)
    paths = RunPaths(RUN_ID)
    settings = yaml.safe_load(store.read_bytes(paths.config))
    settings["voting"] = {"tie": "parts"}
    store.write_bytes(paths.config, yaml.safe_dump(settings).encode())
    votes = store.read_table(paths.votes, Votes)
    tied = votes.with_columns(
        is_tie=True, abstained=False, majority_answer=pl.lit("6"), is_majority_correct=None
    )
    store.write_table(paths.votes, Votes.cast(tied), Votes)
    page = client.get(f"{RUN}/question/q0003").text
    assert "The verifier failed: too slow" in page
    assert ", tie, so made of parts" in page
    text = question_text(read_question(View(store, RUN_ID), "q0003"))
    assert "[no answer] The verifier failed: too slow" in text
    assert ", tie, made of parts" in text


def test_equal_samples_are_one_row_and_one_mark(client, store):
    _answer_alike(store, "3 + 3 = 7. So 6.")
    page = client.get(f"{RUN}/rows?source=teacher&where=question_id+%3D+'q0003'").text
    assert "5 \u00d7" in page
    assert "samples 0, 1, 2, 3, 4" in page
    assert page.count("step wrong") == 1
    form = re.search(r'<form method="post".*?</form>', page, re.DOTALL)[0]
    fields = re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form)
    data = {"mark": "reject", **{n: unescape(v) for n, v in fields if n != "sample_idx"}}
    data["sample_idx"] = [value for name, value in fields if name == "sample_idx"]
    assert client.post(f"{RUN}/mark", data=data, headers=OURS).status_code == 303
    marks = store.read_table("datasets/word_problems/curation", Curation)
    assert marks["sample_idx"].to_list() == [0, 1, 2, 3, 4]
    assert set(marks["mark"]) == {"reject"}


def test_several_samples_are_marked_only_if_all_are_known(client, store):
    data = {**MARK, "sample_idx": ["1", "99"]}
    assert client.post(f"{RUN}/mark", data=data, headers=OURS).status_code == 400
    assert not store.exists("datasets/word_problems/curation")


def test_complete_run_shows_its_result_and_stops_reloading(client, store):
    assert 'http-equiv="refresh"' in client.get(RUN).text
    store.write_json(
        RunPaths(RUN_ID).result, {"round": 3, "validation_accuracy": 0.625, "test": {}}
    )
    store.write_bytes(RunPaths(RUN_ID).report, b"<script>1</script>the report")
    for name in ("DONE", "model.safetensors"):
        store.write_bytes(f"{RunPaths(RUN_ID).best_student}/{name}", b"{}")
    page = client.get(RUN).text
    assert "62.5% of the validation questions" in page
    assert 'http-equiv="refresh"' not in page
    report = client.get(f"{RUN}/report")
    assert report.text.endswith("the report")
    assert report.headers["content-security-policy"].startswith("sandbox; default-src 'none'")


def test_run_page_shows_each_part_of_the_answers(client, store):
    assert "By part of the answer" not in client.get(RUN).text
    part = RunPaths(RUN_ID).metrics_part("test", 3)
    rows = store.read_table(part, Metrics)
    more = rows.head(1).with_columns(name=pl.lit("accuracy_of_<age>"), value=pl.lit(0.5))
    store.write_table(part, pl.concat([rows, more]), Metrics)
    page = client.get(RUN).text
    assert "By part of the answer" in page
    assert "<td>accuracy of field &lt;age&gt;</td><td>50.0%</td>" in page


def test_report_that_is_not_there_is_a_sentence(client):
    answer = client.get(f"{RUN}/report")
    assert answer.status_code == 404
    assert "report.html could not be read" in answer.text


def test_run_page_says_what_went_wrong(client, store):
    page = client.get(RUN).text
    assert "By kind of question" in page
    assert "Some of the wrong answers" in page
    path = RunPaths(RUN_ID).predictions("test", 3)
    yes = pl.col("question_id") < "q0150"
    answers = store.read_table(path, Predictions).with_columns(
        gold_answer=pl.when(yes).then(pl.lit("yes")).otherwise(pl.lit("no")),
        answer=pl.lit("yes"),
        is_correct=yes,
    )
    store.write_table(path, answers, Predictions)
    page = unescape(client.get(RUN).text)
    assert "Always answering yes would be right in 75.0%" in page
    assert re.search(r"<td>no</td><td>30</td><td>0.0%</td><td class=.text.>yes</td>", page)


def test_store_lists_models_with_their_champion_and_says_which_is_damaged(tmp_path):
    store = Store(str(tmp_path / "store"), tmp_path / "scratch")
    version = register(store, complete_run(store, "synthetic-0123", lambda i: i < 45))
    promote(store, version.model, version.name, "because")
    store.write_json("models/other/champion.json", {"champion": 7})
    app = make_app(Explorer(str(store), tmp_path / "scratch"))
    with TestClient(app, base_url="http://127.0.0.1:8400") as client:
        page = " ".join(unescape(client.get("/").text).split())
        of_run = client.get("/runs/synthetic-0123").text
    assert (
        '<td>synthetic</td> <td>1</td> <td class="text"><a href="/runs/synthetic-0123">0123' in page
    )
    assert "<td>75.0%</td>" in page
    assert '<td class="text">promoted 0123</td>' in page
    assert "damaged: " in page
    assert "this student" in of_run


def test_answers_are_shown_with_their_confidence_and_in_its_order(client, store):
    path = RunPaths(RUN_ID).predictions("test", 3)
    rows = store.read_table(path, Predictions)
    sure = [None, *(number / rows.height for number in range(1, rows.height))]
    store.write_table(path, rows.with_columns(confidence=pl.Series(sure)), Predictions)
    surest = client.get(f"{RUN}/answers?order=surest+first").text
    least = client.get(f"{RUN}/answers?order=least+sure+first").text
    shown = [re.findall(r"<td>([\d.]+)%</td>", page) for page in (surest, least)]
    assert shown[0][0] == "99.2"
    assert shown[1][0] == "0.8"
    assert "confidence 99.2%" in client.get(f"{RUN}/question/{rows['question_id'][-1]}").text


def test_answers_of_another_kind_of_inference_are_not_counted_with_those_of_the_run(client, store):
    before = re.search(r"(\d+) of 120</div>", client.get(RUN).text)[1]
    rows = store.read_table(RunPaths(RUN_ID).predictions("test", 3), Predictions)
    path = RunPaths(RUN_ID).predictions("test-explain_then_predict", 3)
    store.write_table(path, rows.with_columns(is_correct=pl.lit(value=False)), Predictions)
    assert f"{before} of 120</div>" in client.get(RUN).text
    assert "120</strong> answers" in client.get(f"{RUN}/answers").text


def test_damaged_champion_hides_no_run(client, store):
    store.write_json("models/synthetic/champion.json", {"champion": 7})
    page = client.get(RUN)
    assert page.status_code == 200
    assert "champion.json" in page.text


def test_rows_of_a_filter_are_downloaded(client):
    page = unescape(client.get(f"{RUN}/rows?source=teacher&correct=right").text)
    num_rows = int(re.search(r"<strong>([0-9,]+)</strong> rationales", page)[1].replace(",", ""))
    links = re.findall(r'href="([^"]+/rows\.\w+\?[^"]+)"', page)

    assert [link.partition("?")[0].rpartition(".")[2] for link in links] == [
        "jsonl",
        "csv",
        "parquet",
    ]
    answer = client.get(links[0])
    rows = [json.loads(line) for line in answer.text.splitlines()]
    assert len(rows) == num_rows > 0
    assert {(row["source"], row["is_correct"]) for row in rows} == {("teacher", True)}
    assert f'filename="{RUN_ID}.jsonl"' in answer.headers["content-disposition"]


def test_download_that_cannot_be_made_is_a_sentence(client):
    assert "no_such_column" in unescape(client.get(f"{RUN}/rows.csv?where=no_such_column").text)
    answer = client.get(f"{RUN}/rows.exe")
    assert answer.status_code == 400
    assert "must end in .jsonl, .csv or .parquet" in answer.text


def test_runs_are_compared_with_the_first(store, client):
    ours = RunPaths(RUN_ID)
    test = store.read_table(ours.predictions("test", 3), Predictions)
    config = store.read_bytes(ours.config)
    for name, rounds, num_changed in (("other", 6, 0), ("third", 4, 9)):
        theirs = RunPaths(name)
        store.write_bytes(
            theirs.config, config.replace(b"num_rounds: 4", f"num_rounds: {rounds}".encode())
        )
        for path in (ours.questions, ours.environment, ours.dataset):
            store.write_bytes(path.replace(RUN_ID, name), store.read_bytes(path))
        changed = test.with_row_index().with_columns(
            is_correct=pl.col("is_correct") ^ (pl.col("index") < num_changed)
        )
        store.write_table(theirs.predictions("test", 3), changed.drop("index"), Predictions)
    fixed = test.head(9)["is_correct"].not_().sum()

    page = unescape(client.get(f"/compare?run={RUN_ID}&run=other&run=third&run=other").text)

    assert "3 runs, compared with the first" in page
    assert f"<td>+{fixed}</td><td>\u2212{9 - fixed}</td>" in page
    assert "no more than chance can give (McNemar, p = 1.00)" in page
    assert re.search(r"training.num_rounds</td><td[^>]*>4</td><td[^>]*>6</td><td[^>]*>4</td>", page)
    assert f"Test answers: 9 of {test.height} differ" in page


@pytest.mark.parametrize("names", [[], [RUN_ID], [RUN_ID, RUN_ID]])
def test_fewer_than_two_runs_cannot_be_compared(client, names):
    answer = client.get("/compare", params={"run": names})
    assert answer.status_code == 404
    assert "Between 2 and 8 runs can be compared" in answer.text


def test_data_set_whose_name_leads_out_of_the_store_is_refused(store, client, tmp_path):
    paths = RunPaths(RUN_ID)
    environment = {**store.read_json(paths.environment, dict), "dataset": "../../escaped"}
    store.write_json(paths.environment, environment)

    answer = client.post(f"{RUN}/mark", data=MARK, headers=OURS)

    assert answer.status_code == 400
    assert "dataset: String should match pattern" in answer.text
    assert not (tmp_path / "escaped").exists()
    assert "damaged: " in client.get("/").text
    assert [f.path for f in validate_store(store).findings if "environment" in f.path]
    with pytest.raises(StoreError, match="dataset: String should match pattern"):
        register(store, RUN_ID)
