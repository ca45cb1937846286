"""The commands `qcrd import` and `qcrd export-sft`: rationales from and for elsewhere."""

import shlex
from pathlib import Path
from typing import Literal


def import_file(
    file: Path,
    *,
    store: str,
    dataset: str,
    format: Literal["plain", "dss", "mcc-kd", "distilabel"] = "plain",
    questions: Path | None = None,
    rationales: str | None = None,
    question: str | None = None,
    question_id: str | None = None,
    gold_answer: str | None = None,
    gold_target: str | None = None,
    choices: str | None = None,
    split: Literal["train", "validation", "test"] = "train",
    model: str | None = None,
) -> None:
    """Bring in rationales that a teacher wrote elsewhere, to distil them without sampling.

    Args:
        file: JSON lines, JSON array, CSV or Parquet.
        store: Folder or object-store URL of the store.
        dataset: Shipped data set or path of a YAML data-set file: how answers are read.
        format: dss: Distilling Step-by-Step's JSON array of outputs, with --questions; or rows with
            teacher_output. mcc-kd: question, label and rationales. distilabel: instruction and
            generation or generations. plain: the columns named here. Named columns always count.
        questions: For dss: the data set's own file, in the order of the outputs.
        rationales: Column with a list of completions, or with one a row.
        question: Column with the question. Without it the data set's own columns are used.
        question_id: Column with ids. Without it an id is a hash of the question.
        gold_answer: Column with the right answer.
        gold_target: Column with the text the student learns instead of the answer.
        choices: Column with a list of choices.
        split: Split of the file's questions.
        model: Who wrote the rationales. Without it, what the file says, or `unknown`.
    """
    from qcrd_core.data.importing import ImportColumns, import_file
    from qcrd_core.data.spec import load_spec
    from qcrd_core.store.store import Store

    columns = ImportColumns(
        rationales=rationales,
        question=question,
        question_id=question_id,
        gold_answer=gold_answer,
        gold_target=gold_target,
        choices=choices,
    )
    done = import_file(
        Store(store, Path(".qcrd/scratch")),
        path=file,
        spec=load_spec(dataset),
        split=split,
        columns=columns,
        model=model,
        form=format,
        asked=questions,
    )
    share = done.num_unparsable / done.num_samples
    print(f"  rows of the file  {done.num_rows:,}")
    print(f"  questions         {done.num_questions:,}")
    print(
        f"  rationales        {done.num_samples:,} ({done.min_samples} to {done.max_samples} a "
        "question)"
    )
    print(f"  without answer    {done.num_unparsable:,} ({share:.2%}), {done.num_empty:,} empty")
    print(f"  stored in         {done.folder}")
    print("\nTo distil them, set `teacher.model` to this in a configuration:")
    print(f"teacher.model='{{type: imported, generation: \"{done.generation}\"}}'")


def export_sft(
    run: str,
    target: Path,
    *,
    trainer: Literal["trl", "llama-factory"] = "trl",
    kind: Literal["sft", "preference"] = "sft",
    instruction: str | None = None,
) -> None:
    """Write a run's rationales as fine-tuning data for TRL or LLaMA-Factory.

    Args:
        run: `<store>/runs/<run id>`.
        target: New .jsonl file. For LLaMA-Factory a dataset_info.json is written beside it.
        trainer: Who reads it.
        kind: sft: a positive rationale a row. preference: pairs of a positive and a negative.
        instruction: Text before every question.
    """
    from qcrd_core.inspect.export_sft import export_sft as write
    from qcrd_core.inspect.view import open_view

    done = write(open_view(run), target, trainer=trainer, kind=kind, instruction=instruction)
    print(f"  rows       {done.num_rows:,}")
    print(f"  questions  {done.num_questions:,}")
    if kind == "preference":
        print(f"  no pair    {done.num_without_pair:,} questions with rationales of one side only")
    print(f"\nhead -1 {shlex.quote(str(target))}")
