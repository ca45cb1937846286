"""Tokenizers: made from texts, or loaded from a folder that may lack parts."""

import json

import polars as pl
import pytest

from qcrd_core.errors import ConfigError, DataError
from qcrd_core.student.tokenizer import END, check_lengths, load_tokenizer, make_tokenizer

TEXTS = ["What is 12 plus 47?", "12 + 47 = 59.", "The answer is 59."]


@pytest.fixture
def folder(tmp_path):
    make_tokenizer(TEXTS, 100).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def _change(folder, name, change):
    file = folder / name
    content = json.loads(file.read_text(encoding="utf-8"))
    change(content)
    file.write_text(json.dumps(content), encoding="utf-8")


def test_make_tokenizer_keeps_seen_numbers_whole_and_special_tokens_first():
    tokenizer = make_tokenizer(TEXTS, 100)
    space = "\u2581"
    assert tokenizer.tokenize("47 12") == [f"{space}47", f"{space}12"]
    assert tokenizer.tokenize("74 21") == [space, "7", "4", space, "2", "1"]
    ids = (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id)
    assert (*ids, tokenizer.mask_token_id) == (0, 1, 2, 3)


def test_make_tokenizer_gives_back_texts_and_is_no_larger_than_asked():
    tokenizer = make_tokenizer(TEXTS * 10, 60)
    decoded = [tokenizer.decode(tokenizer(text)["input_ids"]) for text in TEXTS]
    assert [text.strip() for text in decoded] == TEXTS
    assert len(tokenizer) <= 60


def test_load_tokenizer_of_saved_one_is_the_same(folder):
    tokenizer = load_tokenizer(folder)
    made = make_tokenizer(TEXTS, 100)
    assert tokenizer.get_vocab() == made.get_vocab()
    assert tokenizer(TEXTS[0])["input_ids"] == made(TEXTS[0])["input_ids"]


def test_load_tokenizer_without_padding_pads_with_the_end(folder):
    _change(folder, "tokenizer_config.json", lambda content: content.pop("pad_token"))
    tokenizer = load_tokenizer(folder)
    assert tokenizer.pad_token == END
    assert tokenizer.pad_token_id == 1


def test_load_tokenizer_without_end_token_is_refused(folder):
    _change(folder, "tokenizer_config.json", lambda content: content.pop("eos_token"))
    with pytest.raises(ConfigError, match=r"must have an end token; got none from .*Set eos_token"):
        load_tokenizer(folder)


@pytest.mark.parametrize("kind", ["t5", "qwen2", "llama"])
def test_load_tokenizer_from_folder_with_weights_alone_is_refused(tmp_path, kind):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"must come with a tokenizer; got none from .*Put "):
        load_tokenizer(tmp_path)


def test_load_tokenizer_from_absent_folder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"must come with a tokenizer; got none from .*/none "):
        load_tokenizer(tmp_path / "none")


def test_load_tokenizer_of_damaged_file_is_refused(folder):
    file = folder / "tokenizer.json"
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(ConfigError, match=r"must come with a tokenizer; got none from .*model "):
        load_tokenizer(folder)


def test_question_that_is_too_long_is_named():
    questions = pl.DataFrame({"question_id": ["a", "b"], "question": ["12", "12 " * 50_000]})
    limits = {"prefix": "What ", "end": True}
    tokenizer = make_tokenizer(TEXTS, 100)
    with pytest.raises(DataError, match=r"max_input_tokens = 64; got 1 longer .*\('b'\)"):
        check_lengths(tokenizer, questions, limit=64, **limits)
    assert check_lengths(tokenizer, questions.head(1), limit=64, **limits) == 3
