"""Before round 0: the tokenizers of a run, and the checks that need them.

Jobs:

- `check_student`, before the teacher is sampled: can the student be loaded, do all questions fit?
- `make_tokenizers`, after the vote: make the tokenizers and publish them in the run.
- `count_tokens`, with them: how long are rationales for the student?

A model from scratch gets a tokenizer trained on the run's own texts. That tokenizer needs the
rationales, so `check_student` uses a preliminary one, trained on the questions and their labels.
"""

import shutil
from pathlib import Path
from typing import Any

import polars as pl

from qcrd_core.config.models import FolderModel, HubModel, ScratchEncoder, ScratchWeights
from qcrd_core.run.context import RunContext, RunJob
from qcrd_core.runtime.processes import Emit
from qcrd_core.student.check import check_context, check_model
from qcrd_core.student.jobs import CountTokens, MakeTokenizers
from qcrd_core.student.metadata import EXPLAIN_PREFIX
from qcrd_core.student.prompts import choose_prompt_form
from qcrd_core.student.tokenizer import check_lengths, encode_texts, load_tokenizer, make_tokenizer
from qcrd_core.student.weights import make_student

# Largest vocabulary of a tokenizer made from the run's texts: the numbers and words of a few
# thousand short questions, and no more, because a model from scratch must learn each entry.
_VOCAB_SIZE = 2048
_TEXTS_AT_ONCE = 8192


def check_student(job: RunJob, emit: Emit) -> dict[str, int]:
    """Reject a student or questions on which training would fail hours later.

    Args:
        job: The run.
        emit: Not used.

    Returns:
        `{"num_parameters": int, "longest_question_tokens": int}`.

    Raises:
        ConfigError: If a model or tokenizer cannot be loaded, the student cannot get its adapters,
            or `qcrd_core.student.check` refuses it.
        DataError: If a question exceeds `student.max_input_tokens`.
    """
    del emit
    context = job.context
    weights = context.config.student.model
    questions = _questions(context)
    if isinstance(weights, ScratchWeights):
        texts = [*questions["question"], *questions["gold_target"].drop_nulls()]
        tokenizer = make_tokenizer(texts, _VOCAB_SIZE)
    else:
        tokenizer = _pretrained_tokenizer(weights)
    if not isinstance(context.config.discriminator_model, ScratchEncoder):
        _pretrained_tokenizer(context.config.discriminator_model)
    lora = context.config.student.lora
    model = make_student(weights, tokenizer, context.config.run.seed, lora)
    source = str(getattr(weights, "path", None) or getattr(weights, "name", "from scratch"))
    check_model(model, tokenizer, source)
    if not isinstance(weights, ScratchWeights):
        choose_prompt_form(tokenizer, model)
    longest = _check_lengths(context, questions, tokenizer, model)
    if not isinstance(weights, ScratchWeights):
        check_context(model, longest + context.config.student.max_target_tokens, source)
    return {
        "num_parameters": sum(weight.numel() for weight in model.parameters()),
        "longest_question_tokens": longest,
    }


def make_tokenizers(job: MakeTokenizers, emit: Emit) -> dict[str, int]:
    """Publish the student's tokenizer, and the discriminator's if it differs.

    Args:
        job: The run, and the texts.
        emit: Not used.

    Returns:
        `{"vocab_size": int, "longest_question_tokens": int}`.

    Raises:
        ConfigError: If a tokenizer cannot be loaded.
        DataError: If a question exceeds `student.max_input_tokens`.
    """
    del emit
    context = job.context
    config, paths = context.config, context.paths
    weights = config.student.model
    if isinstance(weights, ScratchWeights):
        texts = pl.read_parquet(job.texts)["text"].to_list()
        tokenizer = make_tokenizer(texts, _VOCAB_SIZE)
    else:
        tokenizer = _pretrained_tokenizer(weights)
    model = make_student(weights, tokenizer, config.run.seed)
    if not isinstance(weights, ScratchWeights):
        choose_prompt_form(tokenizer, model)
    longest = _check_lengths(context, _questions(context), tokenizer, model)
    if not isinstance(config.discriminator_model, ScratchEncoder):
        discriminator_tokenizer = _pretrained_tokenizer(config.discriminator_model)
        _publish(context, discriminator_tokenizer, paths.discriminator_tokenizer)
    _publish(context, tokenizer, paths.tokenizer)
    return {"vocab_size": len(tokenizer), "longest_question_tokens": longest}


def count_tokens(job: CountTokens, emit: Emit) -> None:
    """Count the tokens of texts as training does, with the end token.

    Args:
        job: The run, the texts and the file to write. A text without a value has no number.
        emit: Receives the number of texts measured.

    Raises:
        ConfigError: If the run's tokenizer cannot be loaded.
    """
    context = job.context
    tokenizer = load_tokenizer(context.store.fetch_folder(context.paths.tokenizer))
    counts: list[int | None] = []
    for part in pl.read_parquet(job.texts)["text"].to_frame().iter_slices(_TEXTS_AT_ONCE):
        texts = part["text"].to_list()
        rows = iter(encode_texts(tokenizer, [t for t in texts if t is not None], end=True))
        counts += [None if text is None else len(next(rows)) for text in texts]
        emit({"advance": len(texts)})
    pl.DataFrame({"num_tokens": counts}, schema={"num_tokens": pl.Int32}).write_parquet(job.target)


def _questions(context: RunContext) -> pl.DataFrame:
    splits = ("train", "validation", "test")
    return pl.concat([context.read_questions(split) for split in splits])


def _pretrained_tokenizer(weights: HubModel | FolderModel) -> Any:
    if isinstance(weights, FolderModel):
        return load_tokenizer(weights.path)
    return load_tokenizer(weights.name, weights.revision)


def _check_lengths(context: RunContext, questions: pl.DataFrame, tokenizer: Any, model: Any) -> int:
    """Tokens of the longest question with its longer prefix."""
    student = context.config.student
    prefix = max(student.predict_prefix, EXPLAIN_PREFIX, key=len)
    return check_lengths(
        tokenizer,
        questions,
        prefix=prefix,
        limit=student.max_input_tokens,
        end=model.config.is_encoder_decoder,
    )


def _publish(context: RunContext, tokenizer: Any, rel: str) -> None:
    target = context.store.local(rel)
    temporary = Path(target.parent, f"_tmp-{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    tokenizer.save_pretrained(temporary)
    context.store.publish_folder(temporary, rel)
