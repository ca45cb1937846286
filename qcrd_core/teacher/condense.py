"""Long rationales, written again within a length limit.

    asked = rewriting_questions(long, questions)          one prompt per rationale
    spec = rewriting_spec(spec, max_tokens)               reads rewrites as it reads samples
    verdicts(rows, max_tokens=128)                        table `condensed`

A rewrite is a sample of another question, whose text shows question, rationale and answer. So it is
planned, sampled, stored and resumed like every sample, in a generation of its kind (`CONDENSES`).

The rewriter sees the answer and must keep it, right or wrong: a negative that it corrected would no
longer be one. What it writes is read by the data set's own reader, and counts only if the answer is
the original's. That the steps in between are right is not checked.
"""

from typing import Literal

import polars as pl

from data_schemas import Condensed
from qcrd_core.data.spec import DatasetSpec, PromptSpec
from qcrd_core.teacher.rendering import BYTES_PER_TOKEN

SUGGEST_ABOVE = 0.2
"""Share of rationales too long for the student above which condensing is suggested."""
_AROUND = " \t\r\n.,:;!=*$\"'()"
"""What may stand around an answer that is given twice."""
_INSTRUCTION = (
    "Write the explanation below again in at most {words} words. Keep each step that leads to its "
    "answer, in order, with its numbers and names. Leave out repetitions, doubts, detours and "
    "everything said about the task itself. Keep its answer, even if you would give another one. "
    "Write in the language of the explanation, write nothing else, and end with: {marker} followed "
    "by the answer."
)


def rewriting_spec(
    spec: DatasetSpec, max_tokens: int, api: Literal["chat", "completions"]
) -> DatasetSpec:
    """The data set with the prompt of a rewrite: no demonstration, and an instruction first.

    Args:
        spec: The data set.
        max_tokens: `teacher.condense.max_tokens`.
        api: `teacher.api`.

    Returns:
        A spec that reads answers in the same way.
    """
    # Models count words better than tokens; two tokens per word leave room for numbers.
    words, marker = max_tokens // 2, spec.answer.marker or "Answer:"
    # A text is continued after its last words; a small chat model repeats them before it answers.
    ending = "\n\nShorter explanation:" if api == "completions" else ""
    prompt = PromptSpec(
        instruction=_INSTRUCTION.format(words=words, marker=marker),
        question_template=f"{{question}}{ending}",
    )
    return spec.model_copy(update={"prompt": prompt})


def rewriting_questions(long: pl.DataFrame, questions: pl.DataFrame) -> pl.DataFrame:
    """Ask for one rewrite of each rationale.

    Args:
        long: question_id, sample_idx, rationale and answer (not null); one row per rationale.
        questions: Table `questions`.

    Returns:
        question_id (`<question_id>#<sample_idx>`), question (the prompt's text), choices and
        messages (null), in the order of `long`.
    """
    texts = questions.select("question_id", "question", "choices")
    return long.join(texts, on="question_id", how="inner", maintain_order="left").select(
        question_id=_name(),
        question=pl.concat_str(
            pl.lit("Question: "),
            "question",
            # The explanation comes last: with the answer there, small models only repeat it.
            pl.lit("\n\nAnswer of the explanation: "),
            "answer",
            pl.lit("\n\nExplanation: "),
            pl.col("rationale").str.strip_chars(),
        ),
        choices="choices",
        messages=pl.lit(None, pl.String),  # a rewrite is no turn of the conversation
    )


def rewritten(long: pl.DataFrame, rewrites: pl.DataFrame) -> pl.DataFrame:
    """Put each rationale beside its rewrite.

    Args:
        long: question_id, source, sample_idx, polarity, original, answer and num_tokens_before.
        rewrites: Table `rationales`, the answers to `rewriting_questions`.

    Returns:
        `long` with columns status and error (null if it was not asked), new_answer, and rationale:
        the rewrite without its answer, null if it is blank or the answer again.
    """
    # If a completion is nothing but the answer, `rationale` is the thought before it, which is
    # neither short nor meant to be read.
    own = pl.when(pl.col("rationale").ne_missing(pl.col("reasoning"))).then("rationale")
    says_more = (
        own.str.strip_chars(_AROUND).str.to_lowercase() != pl.col("answer").str.to_lowercase()
    )
    text = pl.when(says_more.fill_null(value=True)).then(own.str.strip_chars().replace("", None))
    found = rewrites.select("question_id", "status", "error", new_answer="answer", rationale=text)
    named = long.drop("rationale", strict=False).with_columns(name=_name())
    joined = named.join(
        found, left_on="name", right_on="question_id", how="left", maintain_order="left"
    )
    return joined.drop("name")


def verdicts(rows: pl.DataFrame, *, max_tokens: int) -> pl.DataFrame:
    """Decide which rewrites count.

    Args:
        rows: From `rewritten`, with num_tokens_after and the generation of the rewrites.
        max_tokens: `teacher.condense.max_tokens`.

    Returns:
        Table `condensed`.
    """
    verdict = (
        pl.when(pl.col("answer").is_null())
        .then(pl.lit("not_asked"))
        .when(pl.col("status") == "failed")
        .then(pl.lit("failed"))
        .when(pl.col("new_answer").is_null())
        .then(pl.lit("no_answer"))
        .when(pl.col("new_answer") != pl.col("answer"))
        .then(pl.lit("other_answer"))
        .when(pl.col("rationale").is_null())
        .then(pl.lit("empty"))
        .when(pl.col("num_tokens_after") > max_tokens)
        .then(pl.lit("too_long"))
        .otherwise(pl.lit("ok"))
    )
    decided = rows.with_columns(verdict=verdict).with_columns(
        rationale=pl.when(pl.col("verdict") == "ok").then("rationale")
    )
    return Condensed.validate(decided.select(Condensed.column_names()), cast=True)


def summarize_condensed(
    condensed: pl.DataFrame, num_kept: int, rewrites: pl.DataFrame
) -> dict[str, float | None]:
    """Count what became of the long rationales of a run.

    Args:
        condensed: Table `condensed`.
        num_kept: Rationales that the run would train on, long or not.
        rewrites: Table `rationales`, the rewrites, also those that another run has paid for.

    Returns:
        Counts `num_*`, of which num_tokens are sampled tokens; kept_answer_share, of the rewrites
        that were written; and the mean lengths mean_tokens_before and mean_tokens_after of those
        that count. None without any.
    """
    counts = dict(condensed["verdict"].cast(pl.String).value_counts().iter_rows())
    num_written = condensed.height - counts.get("failed", 0) - counts.get("not_asked", 0)
    num_other = counts.get("other_answer", 0) + counts.get("no_answer", 0)
    ok = condensed.filter(pl.col("verdict") == "ok")
    means = ok.select(pl.col("num_tokens_before", "num_tokens_after").mean()).row(0)
    return {
        "num_kept": num_kept,
        "num_long": condensed.height,
        "num_condensed": ok.height,
        **{f"num_{name}": counts.get(name, 0) for name in _REFUSED},
        "num_tokens": int(rewrites["num_tokens"].cast(pl.Int64).sum()),
        "kept_answer_share": 1 - num_other / num_written if num_written else None,
        "mean_tokens_before": means[0],
        "mean_tokens_after": means[1],
    }


def share_too_long(texts: pl.Series, limit: int) -> float | None:
    """Estimate the share of texts that exceed a limit, without a tokenizer.

    Args:
        texts: Rationales; nulls are left out.
        limit: Tokens, taken as 4 bytes each.

    Returns:
        A share; None without texts.
    """
    sizes = texts.drop_nulls().str.len_bytes()
    return float((sizes > limit * BYTES_PER_TOKEN).sum()) / len(sizes) if len(sizes) else None


_REFUSED = ("other_answer", "no_answer", "empty", "too_long", "failed", "not_asked")


def _name() -> pl.Expr:
    """question_id of a rewrite."""
    return pl.concat_str("question_id", pl.lit("#"), "sample_idx")
