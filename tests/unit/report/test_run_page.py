"""What the Prefect UI shows of a run."""

import base64
import re
from xml.etree import ElementTree

import pytest
import yaml

from qcrd_core.config.run import validate_config
from qcrd_core.report import run_page
from qcrd_core.run.context import RunContext
from qcrd_core.run.paths import RunPaths
from qcrd_core.store.store import Store
from tests.support.synthetic_run import CONFIG, RUN_ID, Shape, write_synthetic_run


@pytest.fixture
def context(tmp_path):
    """A synthetic run, opened."""
    store = Store(str(tmp_path / "store"), tmp_path / "scratch")
    write_synthetic_run(store, Shape(num_train=20, num_rounds=15, steps_per_round=2, auc=0.5))
    return RunContext(validate_config(CONFIG, "test"), store, RunPaths(RUN_ID))


def test_page_names_accuracy_rounds_warnings_and_places(context):
    page = run_page.run_page(context.store, RUN_ID)

    assert page.startswith("# synthetic: 60.0% right on test\n")
    assert "60.0% (95% interval 51.1% to 68.3%, 72 of 120)" in page
    assert re.search(r"^\| \*\*\d+\*\* \|", page, re.MULTILINE)
    assert "3 earlier rounds are in the report" in page
    assert "> **Warning:** The discriminator cannot tell" in page
    assert f"`qcrd promote {RUN_ID} --store {context.store}`" in page


def test_page_of_a_configuration_alone_measures_nothing_and_breaks_no_table(tmp_path):
    store = Store(str(tmp_path), tmp_path)
    teacher = {"model": {"type": "hub", "name": "a|b<script>"}}
    store.write_bytes(
        RunPaths(RUN_ID).config, yaml.safe_dump({**CONFIG, "teacher": teacher}).encode()
    )

    page = run_page.run_page(store, RUN_ID)

    assert page.startswith("# synthetic: not measured\n")
    assert "| teacher | a\\|b&lt;script> |" in page


def test_vote_tables_say_in_words_what_was_counted(context):
    counts = {row["what"]: row["value"] for row in run_page.vote_counts(context)}
    agreement = run_page.vote_agreement(context)

    assert counts["questions voted on"] == "20"
    assert re.fullmatch(r"[\d.]+%", counts["accuracy of single samples"])
    assert agreement[-1]["agreement at least"] == "100%"
    numbers = [int(row["questions"]) for row in agreement]
    assert numbers == sorted(set(numbers), reverse=True)


def test_drawings_are_separate_images(context):
    page = run_page.run_page(context.store, RUN_ID)

    for image in (run_page.learning_curve(context), run_page.score_histograms(context, 14)):
        (data,) = re.findall(r"^!\[[\w ]+\]\(data:image/svg\+xml;base64,(.*)\)$", image)
        assert ElementTree.fromstring(base64.b64decode(data)).tag.endswith("svg")
        assert image in page
