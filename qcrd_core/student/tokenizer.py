"""Tokenizers: that of the pretrained model, or one trained on the run's texts."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from huggingface_hub.constants import ENDPOINT
from huggingface_hub.errors import LocalEntryNotFoundError
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from qcrd_core.errors import ConfigError, DataError
from qcrd_core.student.prompts import write_prompts

PAD, END, UNKNOWN, MASK = "<pad>", "</s>", "<unk>", "<mask>"


def make_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-pair tokenizer, small enough for a model from scratch.

    A frequent number becomes one token, and a rare one is split into digits. In this way the
    quickstart's student answers 76% of the test questions correctly; with one token per digit, 41%.

    Args:
        texts: Questions, rationales and labels of the training split.
        vocab_size: Largest vocabulary.

    Returns:
        A fast tokenizer with pad 0, end 1, unknown 2, mask 3.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.NFKC()
    # A number with the space before it is one piece. `Digits` would leave the space as a token.
    number = pre_tokenizers.Split(Regex("\u2581?[0-9]+"), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), number])
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[PAD, END, UNKNOWN, MASK], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, unk_token=UNKNOWN, mask_token=MASK
    )


def load_tokenizer(source: str | Path, revision: str | None = None) -> Any:
    """Load a tokenizer that has an end token; padding falls back to it.

    Args:
        source: Hub name or local folder.
        revision: Commit or tag of a hub repository.

    Returns:
        The tokenizer.

    Raises:
        ConfigError: If there is no tokenizer, or it has no end token.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
    except Exception as error:
        refuse_silent_hub(source, error)
        raise ConfigError(_no_tokenizer(source, first_line(error))) from error
    # If its files are absent, a T5 or Qwen2 tokenizer has only special tokens.
    if len(tokenizer.get_vocab().keys() - tokenizer.get_added_vocab().keys()) < 2:
        raise ConfigError(_no_tokenizer(source, "its vocabulary is empty"))
    if tokenizer.eos_token_id is None:
        msg = f"A tokenizer must have an end token; got none from {source}. Set eos_token in it."
        raise ConfigError(msg)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def refuse_silent_hub(source: str | Path, error: BaseException | None) -> None:
    """Say that the hub does not answer, which transformers reports as a missing file.

    Args:
        source: Hub name or local folder of a model.
        error: What loading it raised.

    Raises:
        ConfigError: If the reason is that the hub cannot be reached.
    """
    while error is not None:
        if isinstance(error, LocalEntryNotFoundError):
            msg = (
                f"{source} is a model of the hub, and {ENDPOINT} does not answer. Check the "
                "network, or copy the model to this machine and name its folder."
            )
            raise ConfigError(msg) from error
        error = error.__cause__ or error.__context__


def first_line(error: Exception) -> str:
    """What an error of another library says, in one line."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def encode_texts(tokenizer: Any, texts: Sequence[str], *, end: bool) -> list[list[int]]:
    """Tokenise without truncation, with one end token if `end`, otherwise without.

    Args:
        tokenizer: A Hugging Face tokenizer with an end token.
        texts: Texts, possibly none.
        end: Whether sequences end with the end token.

    Returns:
        Token ids of each text.
    """
    if not texts:
        return []
    rows = tokenizer(list(texts), add_special_tokens=False, truncation=False)["input_ids"]
    return [[*row, tokenizer.eos_token_id] if end else row for row in rows]


def check_lengths(
    tokenizer: Any, questions: pl.DataFrame, *, prefix: str, limit: int, end: bool
) -> int:
    """Refuse questions that are too long for a student: they are never cut.

    Args:
        tokenizer: As for `encode_texts`.
        questions: Table `questions`.
        prefix: Text before each question.
        limit: `student.max_input_tokens`.
        end: As for `encode_texts`.

    Returns:
        Tokens of the longest question with its prefix.

    Raises:
        DataError: If a question is longer.
    """
    texts = write_prompts(tokenizer, prefix, questions)
    lengths = [len(row) for row in encode_texts(tokenizer, texts, end=end)]
    longest = max(lengths, default=0)
    if longest > limit:
        question_id = questions["question_id"][lengths.index(longest)]
        num_longer = sum(length > limit for length in lengths)
        msg = (
            f"A question must fit into student.max_input_tokens = {limit}; got {num_longer} longer "
            f"questions, the longest with {longest} tokens ({question_id!r}). Shorten the "
            "questions, or train with a larger limit; they are never cut."
        )
        raise DataError(msg)
    return longest


def pad_rows(rows: Sequence[Sequence[int]], value: int) -> tuple[Tensor, Tensor]:
    """Pad rows on the right.

    Args:
        rows: Token ids or indices, at least one row.
        value: Value of the padding.

    Returns:
        Ids, [S, T] with T >= 1, and 1 on real entries, [S, T].
    """
    lengths = np.array([len(row) for row in rows])
    mask = np.arange(max(1, lengths.max())) < lengths[:, None]
    ids = np.full(mask.shape, value)
    ids[mask] = [token for row in rows for token in row]
    return torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64))


def _no_tokenizer(source: str | Path, reason: str) -> str:
    return (
        f"A model must come with a tokenizer; got none from {source} ({reason}). Put "
        "tokenizer.json and tokenizer_config.json into the folder of its weights."
    )
