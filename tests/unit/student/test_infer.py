"""Answers by label, rationale and vote, from a model that writes what a script says."""

from types import SimpleNamespace

import polars as pl
import pytest
import torch

from qcrd_core.answers import AnswerSpec
from qcrd_core.datasets.spec import Columns
from qcrd_core.student.about import StudentAbout
from qcrd_core.student.infer import Answer, Answerer, majority

QUESTIONS = pl.DataFrame(
    {"question": ["a?", "b?"], "choices": [None, None]},
    schema={"question": pl.String, "choices": pl.List(pl.String)},
)
LABELS = {"predict: a?": "1", "predict: b?": "2"}
# Of a, two of three rationales say 7; of b none comes to an answer.
RATIONALES = {
    "explain: a?": ["3 + 4 = 7.", "3 + 5 = 8.", "So 7."],
    "explain: b?": ["no idea", "none", "so what"],
}


class Letters:
    """A tokenizer by letters."""

    pad_token_id, eos_token_id = 0, 1

    def __call__(self, texts, **_):
        return {"input_ids": [[ord(c) for c in text] for text in texts]}

    def pad(self, rows, **_):
        width = max(map(len, rows["input_ids"]))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows["input_ids"]])
        return Moved(input_ids=ids, attention_mask=(ids > 0).long())

    def decode(self, tokens, **_):
        return "".join(map(chr, tokens))


class Moved(dict):
    def to(self, _device):
        return self


class Script:
    """Writes labels greedily, and a rationale more at each call under the explain prefix."""

    config, device = SimpleNamespace(is_encoder_decoder=True), "cpu"

    def __init__(self):
        self.calls, self.sampled = [], []

    def eval(self):
        return self

    def generate(self, input_ids, do_sample, max_new_tokens, **_):
        prompts = ["".join(chr(t) for t in row if t > 1) for row in input_ids.tolist()]
        number = sum(call[0].startswith("explain") for call in self.calls)
        self.calls.append(prompts)
        self.sampled.append((do_sample, max_new_tokens))
        texts = [LABELS[p] if p in LABELS else RATIONALES[p][number] for p in prompts]
        width = max(map(len, texts)) + 2
        rows = [[0, *map(ord, text), 1] for text in texts]
        return torch.tensor([row + [0] * (width - len(row)) for row in rows])


def _about(**more):
    return StudentAbout(
        run_id="r",
        round=0,
        dataset="d",
        predict_prefix="predict: ",
        explain_prefix="explain: ",
        max_input_tokens=64,
        max_new_tokens=8,
        columns=Columns(),
        question_template=None,
        answer=AnswerSpec(kind="number"),
        max_rationale_tokens=32,
        **more,
    )


def _run(questions=QUESTIONS, **more):
    script, done = Script(), []
    answerer = Answerer(script, Letters(), _about(**more), batch_size=4)
    answers, num_silent = answerer.answer(questions, lambda event: done.append(event["advance"]))
    return script, [item.answer for item in answers], num_silent, sum(done)


def test_predict_reads_the_label_alone():
    script, answers, num_silent, _ = _run()
    assert (answers, num_silent, len(script.calls)) == (["1", "2"], 0, 1)
    assert script.sampled == [(False, 8)]


def test_explain_then_predict_reads_the_rationale_and_else_the_label():
    script, answers, num_silent, done = _run(infer="explain_then_predict")
    assert (answers, num_silent, done) == (["7", "2"], 1, 2)
    assert script.calls[1] == ["predict: b?"]
    assert script.sampled == [(False, 32), (False, 8)]


def test_explain_then_predict_asks_for_no_label_that_it_does_not_need():
    script, answers, num_silent, _ = _run(QUESTIONS.head(1), infer="explain_then_predict")
    assert (answers, num_silent, len(script.calls)) == (["7"], 0, 1)


def test_vote_takes_the_answer_of_most_sampled_rationales():
    script, answers, num_silent, done = _run(infer="vote_k", num_votes=3, sampling_temperature=0.7)
    assert (answers, num_silent, done) == (["7", "2"], 1, 6)
    assert script.sampled == [*[(True, 32)] * 3, (False, 8)]


@pytest.mark.parametrize(
    ("given", "winner"),
    [([None, "8", "7", "7"], 2), (["8", "7"], 0), ([None, None], 0), ([None, "8"], 1)],
    ids=["most", "tie", "none", "one"],
)
def test_majority_ignores_texts_without_an_answer(given, winner):
    answers = [Answer(str(number), answer) for number, answer in enumerate(given)]
    assert majority(answers) is answers[winner]
