"""The HTML page: what it says, that nothing in it runs or loads, and that it copes with gaps."""

from dataclasses import replace
from html.parser import HTMLParser

import polars as pl
import pytest
import yaml

from data_schemas import Condensed, Metrics, Scores, Votes
from qcrd_core.config.run import validate_config
from qcrd_core.errors import DataError, StoreError
from qcrd_core.report.page import write_report
from qcrd_core.run.context import RunContext
from qcrd_core.run.paths import RunPaths
from qcrd_core.store.store import Store
from qcrd_core.teacher.condense import summarize_condensed
from tests.support.synthetic_run import CONFIG, RUN_ID, Shape, write_synthetic_run
from tests.support.tables import make_rationales

VOID = {"meta"}


class Tags(HTMLParser):
    """Collects tags and attributes, and checks that they nest."""

    def __init__(self):
        """Start with nothing open."""
        super().__init__()
        self.names, self.attributes, self.open = set(), [], []

    def handle_starttag(self, tag, attrs):
        """Open it."""
        self.names.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        """Open and close it."""
        self.names.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        """Close what was opened last."""
        assert self.open.pop() == tag


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"), tmp_path / "scratch")


SMALL = Shape(num_train=12, num_test=12, num_rounds=2, steps_per_round=3)


def page_of(store):
    return store.read_bytes(write_report(store, RUN_ID)).decode()


def parse(page):
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    return tags


def test_write_report_with_whole_run_states_the_headline(store):
    write_synthetic_run(store)
    assert write_report(store, RUN_ID) == RunPaths(RUN_ID).report
    page = page_of(store)
    assert "The student answers <strong>60.0%</strong> of 120 unseen test questions" in page
    assert "95% interval 51.1% to 68.3%" in page
    assert "on the training questions" in page
    assert page.count("<svg") == 9
    assert "not measured" not in page


def test_write_report_shows_scores_of_parts_of_student_and_teacher(store):
    write_synthetic_run(store, SMALL)
    assert "Parts of answers" not in page_of(store)
    for stage, round_, further in (
        ("test", SMALL.num_rounds - 1, {"micro_f1": 0.75, "accuracy_of_age": 0.5}),
        ("vote", -1, {"accuracy_of_age": 0.625}),
    ):
        part = RunPaths(RUN_ID).metrics_part(stage, round_)
        rows = store.read_table(part, Metrics)
        more = [
            rows.head(1).with_columns(name=pl.lit(name), value=pl.lit(value))
            for name, value in further.items()
        ]
        store.write_table(part, pl.concat([rows, *more]), Metrics)
    page = page_of(store).replace("\n", "")
    assert "<td>accuracy of field age</td><td>50.0%</td><td>62.5%</td>" in page
    assert "<td>micro F1</td><td>75.0%</td><td class=absent>\N{EN DASH}</td>" in page


def test_write_report_names_the_speed_of_each_server(store):
    write_synthetic_run(store, SMALL)
    row = "<td>http://gpu1:8000/v1</td><td>412</td><td>24</td><td>3</td><td>1</td>"
    assert row in page_of(store)


def test_write_report_with_hostile_rationale_stays_text(store):
    write_synthetic_run(store, SMALL)
    page = page_of(store)
    tags = parse(page)
    assert not tags.names & {"script", "img", "link", "iframe"}
    assert not [name for name, _ in tags.attributes if name.startswith("on")]
    assert not [name for name, _ in tags.attributes if name in {"src", "href"}]
    assert "&lt;script&gt;document.title" in page
    assert "{{ 7 * 7 }}" in page
    assert r"a\u0000b\u001b[31mred\u202eright" in page
    assert not set(page) & set("\x00\x1b\u202e")


def test_write_report_shows_rewrites_beside_their_originals(store):
    write_synthetic_run(store, SMALL)
    paths = RunPaths(RUN_ID)
    assert "Condensed rationales" not in page_of(store)
    config = {**CONFIG, "teacher": {**CONFIG["teacher"], "condense": {"max_tokens": 99}}}
    store.write_bytes(paths.config, yaml.safe_dump(config).encode())
    refused = {"verdict": "failed", "rationale": None, "num_tokens_after": None, "sample_idx": 1}
    rows = [
        {**Condensed.example, "original": "Long <b>text</b>.", "rationale": "Short."},
        {**Condensed.example, **refused, "original": "Refused."},
    ]
    table = pl.DataFrame(rows, schema=Condensed.create_empty().schema)
    store.write_table(paths.condensed, table, Condensed)
    numbers = summarize_condensed(table, 9, make_rationales([]))
    RunContext(validate_config(config, "test"), store, paths).write_metrics("condense", -1, numbers)

    page = page_of(store)
    parse(page)

    assert "Limit: 99 tokens" in page
    assert "Long &lt;b&gt;text&lt;/b&gt;." in page
    assert "<p>Short.</p>" in page
    assert "Refused." not in page
    assert "<td>rewrites that kept their answer</td><td>100.0%</td>" in page


def test_write_report_with_config_alone_says_not_measured(store):
    config = yaml.safe_dump(CONFIG).encode()
    store.write_bytes(RunPaths(RUN_ID).config, config)
    page = page_of(store)
    parse(page)
    assert "The student was not tested" in page
    assert page.count("not measured") >= 10
    assert "<svg" not in page


@pytest.mark.parametrize(
    "absent", ["metrics", "scores", "predictions", "votes.parquet", "environment.json"]
)
def test_write_report_with_one_thing_missing_still_renders(store, absent):
    write_synthetic_run(store, SMALL)
    store.delete(f"{RunPaths(RUN_ID).root}/{absent}")
    parse(page_of(store))


def test_write_report_with_one_round_of_one_step_renders(store):
    write_synthetic_run(store, replace(SMALL, num_rounds=1, steps_per_round=1))
    page = page_of(store)
    parse(page)
    assert "nan" not in page.lower()
    assert page.count("Scores in round") == 1


def test_write_report_without_recorded_vote_counts_table_votes(store):
    write_synthetic_run(store, SMALL)
    store.delete(RunPaths(RUN_ID).metrics_part("vote", -1))
    page = page_of(store)
    abstained = store.read_table(RunPaths(RUN_ID).votes, Votes)["abstained"].sum()
    assert f"<td>questions on which the vote abstained</td><td>{abstained}</td>" in page
    assert "<td>accuracy of single samples</td><td class=absent>not measured</td>" in page


@pytest.mark.parametrize(("auc", "warns"), [(0.55, True), (0.9, False)])
def test_write_report_warns_when_discriminator_separates_nothing(store, auc, warns):
    write_synthetic_run(store, replace(SMALL, auc=auc))
    assert ("The discriminator cannot tell" in page_of(store)) is warns


def test_write_report_of_run_without_discriminator_names_weights_alone(store):
    write_synthetic_run(store, SMALL)
    paths = RunPaths(RUN_ID)
    for round_ in range(SMALL.num_rounds):
        scores = store.read_table(paths.scores(round_), Scores)
        blank = scores.with_columns(quality_score=pl.lit(None, pl.Float64), rationale_weight=1.0)
        store.write_table(paths.scores(round_), blank, Scores)

    write_report(store, RUN_ID)

    page = store.read_bytes(paths.report).decode()
    assert "· weight 1.00" in page
    assert "· score" not in page


def test_write_report_with_unknown_run_names_those_that_are_there(store):
    write_synthetic_run(store, replace(SMALL, num_rounds=1, steps_per_round=1))
    with pytest.raises(StoreError, match=rf"has no run 'other'. Its runs: {RUN_ID}"):
        write_report(store, "other")


def test_write_report_with_damaged_table_is_refused(store):
    write_synthetic_run(store, replace(SMALL, num_rounds=1, steps_per_round=1))
    store.write_bytes(RunPaths(RUN_ID).votes, b"torn")
    with pytest.raises(DataError, match="must be a whole Parquet file"):
        write_report(store, RUN_ID)
