"""Answers by label, rationale and vote, from a model that writes what a script says."""

from types import SimpleNamespace
from typing import ClassVar

import polars as pl
import pytest
import torch
from torch import nn

from qcrd_core.config.models import ScratchWeights
from qcrd_core.data.answers import AnswerSpec
from qcrd_core.data.spec import Columns
from qcrd_core.student.inference import Answer, Answerer, majority
from qcrd_core.student.metadata import StudentMetadata
from qcrd_core.student.tokenizer import make_tokenizer
from qcrd_core.student.weights import make_student

QUESTIONS = pl.DataFrame(
    {"question": ["a?", "b?"], "choices": [None, None]},
    schema={"question": pl.String, "choices": pl.List(pl.String)},
)
# Longer than the 8 tokens that a label may have, so what follows is never read.
LABELS = {"predict: a?": "1        9", "predict: b?": "2"}
# Of a, two of three rationales say 7; of b none comes to an answer.
RATIONALES = {
    "explain: a?": ["3 + 4 = 7.", "3 + 5 = 8.", "So 7."],
    "explain: b?": ["no idea", "none", "so what"],
}


class Letters:
    """A tokenizer by letters."""

    pad_token_id, eos_token_id = 0, 1
    init_kwargs: ClassVar = {}

    def __call__(self, texts, **_):
        return {"input_ids": [[ord(c) for c in text] for text in texts]}

    def decode(self, tokens, **_):
        return "".join(map(chr, tokens))


class Script(nn.Module):
    """An encoder-decoder that is sure of each letter.

    Writes labels, and a rationale more at each reading of prompts under the explain prefix.
    """

    config = SimpleNamespace(is_encoder_decoder=True, decoder_start_token_id=0, model_type="script")
    device = torch.device("cpu")

    def __init__(self):
        super().__init__()
        self.calls, self.texts = [], []

    def get_encoder(self):
        return self._encode

    def get_decoder(self):
        return SimpleNamespace(set_attn_implementation=lambda _: None)

    def _encode(self, input_ids, **_):
        prompts = ["".join(chr(t) for t in row if t > 1) for row in input_ids.tolist()]
        number = sum(call[0].startswith("explain") for call in self.calls)
        self.calls.append(prompts)
        start = len(self.texts)
        self.texts += [LABELS[p] if p in LABELS else RATIONALES[p][number] for p in prompts]
        # [B, W, 1]: which text each prompt is to get.
        numbers = torch.arange(start, len(self.texts), dtype=torch.float32)
        states = numbers[:, None, None].repeat(1, input_ids.shape[1], 1)
        return SimpleNamespace(last_hidden_state=states)

    def decoder(self, attention_mask, encoder_hidden_states, **_):
        positions = ((attention_mask == 0).sum(dim=-1) - 1).flatten().tolist()
        numbers = encoder_hidden_states[:, 0, 0].long().tolist()
        texts = [self.texts[number] + chr(1) for number in numbers]
        letters = [
            ord(text[min(at, len(text) - 1)]) for text, at in zip(texts, positions, strict=True)
        ]
        logits = 1000.0 * nn.functional.one_hot(torch.tensor(letters), 128)
        return SimpleNamespace(last_hidden_state=logits[:, None])

    def lm_head(self, hidden):
        return hidden


def _metadata(**more):
    return StudentMetadata(
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
    answerer = Answerer(script, Letters(), _metadata(**more), batch_size=4)
    answers, num_silent = answerer.answer(questions, lambda event: done.append(event["advance"]))
    return script, [item.answer for item in answers], num_silent, sum(done)


def test_predict_reads_the_label_alone():
    script, answers, num_silent, _ = _run()
    assert (answers, num_silent, len(script.calls)) == (["1", "2"], 0, 1)


def test_explain_then_predict_reads_the_rationale_and_else_the_label():
    script, answers, num_silent, done = _run(infer="explain_then_predict")
    assert (answers, num_silent, done) == (["7", "2"], 1, 2)
    assert script.calls[1] == ["predict: b?"]


def test_explain_then_predict_asks_for_no_label_that_it_does_not_need():
    script, answers, num_silent, _ = _run(QUESTIONS.head(1), infer="explain_then_predict")
    assert (answers, num_silent, len(script.calls)) == (["7"], 0, 1)


def test_vote_takes_the_answer_of_most_sampled_rationales():
    script, answers, num_silent, done = _run(infer="vote_k", num_votes=3, sampling_temperature=0.7)
    assert (answers, num_silent, done, len(script.calls)) == (["7", "2"], 1, 6, 4)


def test_raw_confidence_is_the_probability_of_the_text_or_the_share_that_agrees():
    def raw(**more):
        answerer = Answerer(Script(), Letters(), _metadata(**more), batch_size=4)
        answers, _ = answerer.answer(QUESTIONS, lambda _: None)
        return [item.raw_confidence for item in answers]

    assert raw() == [1.0, 1.0]  # the script is sure of each letter
    # Of a two of three agree; the label that replaces b's rationales compares with none of them.
    assert raw(infer="vote_k", num_votes=3, sampling_temperature=0.7) == [2 / 3, None]
    assert raw(infer="explain_then_predict") == [1.0, None]


def test_rationale_is_kept_beside_its_answer():
    answerer = Answerer(Script(), Letters(), _metadata(infer="explain_then_predict"), batch_size=4)
    answers, _ = answerer.answer(QUESTIONS, lambda _: None)
    assert [item.rationale for item in answers] == ["3 + 4 = 7.", None]


def test_vote_samples_each_rationale_anew_and_repeats_itself():
    tokenizer = make_tokenizer([*QUESTIONS["question"], "explain: predict: 0 1 2 3"], 60)
    tiny = ScratchWeights(hidden_size=32, num_layers=1)
    metadata = _metadata(infer="vote_k", num_votes=2, sampling_temperature=0.7, seed=1)
    answerer = Answerer(make_student(tiny, tokenizer, seed=0), tokenizer, metadata, batch_size=4)
    first, second, first_again = (answerer._explain(QUESTIONS, k, print) for k in (0, 1, 0))
    assert first == first_again
    assert all(a.text != b.text for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("given", "winner"),
    [([None, "8", "7", "7"], 2), (["8", "7"], 0), ([None, None], 0), ([None, "8"], 1)],
    ids=["most", "tie", "none", "one"],
)
def test_majority_ignores_texts_without_an_answer(given, winner):
    answers = [Answer(str(number), answer) for number, answer in enumerate(given)]
    assert majority(answers) is answers[winner]


def test_failure_of_a_verifier_on_a_students_text_is_told(tmp_path):
    (tmp_path / "never.py").write_text(
        "def canonical(text, question):\n    raise OSError(question)"
    )
    verifier = {"function": "never:canonical", "folder": str(tmp_path)}
    answer = AnswerSpec.model_validate({"kind": "verifier", "verifier": verifier})
    metadata = _metadata().model_copy(update={"answer": answer})
    answers, _ = Answerer(Script(), Letters(), metadata, batch_size=4).answer(QUESTIONS, print)
    assert [(item.answer, item.error) for item in answers] == [
        (None, f"OSError: {question}") for question in QUESTIONS["question"]
    ]
