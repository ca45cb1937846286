"""Settings of the method that contradict each other are refused at load, in one sentence."""

import pytest

from tests.support.tiny_config import refusal, tiny_config


def test_options_of_the_loss_load_and_default_to_the_papers_reading():
    loss = tiny_config().loss
    assert (loss.pos_select, loss.neg_select) == ("min", "max")
    tiny_config(loss={"pos_select": "softmin", "softmin_temperature": 0.5, "neg_select": "min"})


def test_unknown_selection_is_refused_with_the_known_ones():
    assert "'min', 'max', 'mean'" in refusal(loss={"pos_select": "best"})


def test_softmin_temperature_without_softmin_is_refused():
    message = refusal(loss={"softmin_temperature": 0.5})
    assert message.startswith(
        "loss.softmin_temperature applies only when loss.pos_select is softmin"
    )
    assert "it is min (tiny.yaml" in message


def test_verify_without_student_negatives_is_refused():
    message = refusal(negatives={"verify": "drop", "student": False})
    assert message.startswith("negatives.verify applies only when negatives.student is true; it is")
    tiny_config(negatives={"verify": "promote"})


@pytest.mark.parametrize("name", ["pos_select", "neg_select"])
def test_weighted_choice_without_quality_weights_is_refused(name):
    message = refusal(loss={name: "weighted", "quality_weights": False})
    assert message.startswith(f"loss.{name}=weighted needs loss.quality_weights; it is false")


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ({"loss": {"beta": 0}}, "loss.beta is 0"),
        ({"negatives": {"teacher_minority": False, "student": False}}, "negatives.* names no"),
    ],
    ids=["beta", "sources"],
)
@pytest.mark.parametrize(
    "option",
    [{"neg_select": "min"}, {"neg_loss": "pairwise"}, {"neg_tokens": "after_divergence"}],
    ids=str,
)
def test_options_of_negatives_without_any_negative_are_refused(sections, reason, option):
    sections = {**sections, "loss": {**sections.get("loss", {}), **option}}
    (name,) = option
    message = refusal(**sections)
    assert message.startswith(f"loss.{name} applies only when the student learns from negatives; ")
    assert reason in message


@pytest.mark.parametrize(
    ("offload", "stage", "least"), [("optimizer", 0, 1), ("optimizer_and_weights", 2, 3)]
)
def test_offload_of_what_is_not_sharded_is_refused(offload, stage, least):
    message = refusal(training={"cpu_offload": offload, "zero_stage": stage})
    assert message.startswith(f"training.zero_stage must be at least {least} for training.cpu_")
    tiny_config(training={"cpu_offload": offload, "zero_stage": least})


def test_ranks_and_their_memory_do_not_rename_a_run():
    how = {
        "num_processes": 2,
        "micro_batch_size": 16,
        "zero_stage": 3,
        "cpu_offload": "optimizer",
        "gradient_checkpointing": True,
    }
    one = tiny_config(training={"micro_batch_size": 16}).run_id("data")
    assert tiny_config(training=how).run_id("data") == one
    assert (
        tiny_config(training={"micro_batch_size": 16, "precision": "bfloat16"}).run_id("data")
        != one
    )


def test_adapters_on_random_weights_are_refused():
    message = refusal(student={"model": {"type": "scratch"}, "lora": {"rank": 4}})
    assert message.startswith("student.lora must be null if student.model.type is scratch; got")


@pytest.mark.parametrize("training", [{}, {"precision": "bfloat16", "zero_stage": 3}], ids=str)
def test_quantized_weights_in_float32_or_parts_are_refused(training):
    student = {"model": {"type": "hub", "name": "t5"}, "lora": {"quantize": "nf4"}}
    message = refusal(student=student, training=training)
    assert message.startswith("student.lora.quantize=nf4 needs training.precision=bfloat16")
    tiny_config(student=student, training={"precision": "bfloat16", "zero_stage": 2})


def test_adapters_rename_a_run_and_their_absence_does_not():
    model = {"type": "hub", "name": "t5"}
    plain = tiny_config(student={"model": model}).run_id("data")
    assert tiny_config(student={"model": model, "lora": None}).run_id("data") == plain
    assert tiny_config(student={"model": model, "lora": {}}).run_id("data") != plain
