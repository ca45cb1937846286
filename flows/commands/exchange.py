"""The commands `qcrd import` and `qcrd export-sft`: exchange rationales with other tools."""

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
    answer: str | None = None,
    correct: str | None = None,
    split: Literal["train", "validation", "test"] = "train",
    model: str | None = None,
) -> None:
    """Import rationales that a teacher wrote elsewhere, to distil them without sampling.

    Args:
        file: JSON lines, JSON array, CSV, TSV or Parquet file; or a quoted pattern such as
            'train_*.json', or a folder, for the parts of one.
        store: Folder or object-store URL of the store.
        dataset: Name of a shipped data set, or path of a YAML data-set file. It says how answers
            are read.
        format: Layout of the file. plain: the columns named by the options below. dss: Distilling
            Step-by-Step's JSON array of outputs, together with --questions, or rows with
            teacher_output. mcc-kd: question or instruction, label, and rationales or output.
            distilabel: instruction, and generation or generations. Columns named by options
            override those of the format.
        questions: Only for dss: the data set's own file, in the same order as the outputs.
        rationales: Column with a list of completions, or with one completion per row.
        question: Column with the question. By default the data set's own columns.
        question_id: Column with ids. By default the id is a hash of the question.
        gold_answer: Column with the right answer.
        gold_target: Column with the text that the student learns instead of the answer.
        choices: Column with a list of choices.
        answer: Column with the answer of each rationale, which then is not read from its text.
        correct: Column that says whether each rationale is right (true or false). The answer of a
            right one is the gold answer.
        split: The split that the file's questions belong to.
        model: The model that wrote the rationales. By default the model that the file names, or
            `unknown`.
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
        answer=answer,
        correct=correct,
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
        f"  rationales        {done.num_samples:,} ({done.min_samples} to {done.max_samples} per "
        "question)"
    )
    print(f"  without answer    {done.num_unparsable:,} ({share:.2%}), {done.num_empty:,} empty")
    print(f"  stored in         {done.folder}")
    print("\nTo distil them, set this in your configuration or on the command line:")
    print(f"teacher.model='{{type: imported, generation: \"{done.generation}\"}}'")


def export_sft(
    run: str,
    target: Path,
    *,
    trainer: Literal["trl", "llama-factory"] = "trl",
    kind: Literal["sft", "preference"] = "sft",
    instruction: str | None = None,
) -> None:
    """Export a run's rationales as fine-tuning data for TRL or LLaMA-Factory.

    Args:
        run: Folder or URL of the run, `<store>/runs/<run id>`.
        target: New .jsonl file. For LLaMA-Factory, dataset_info.json is written to the same folder.
        trainer: The tool that will read the file.
        kind: sft: one positive rationale per row. preference: one positive and one negative per
            row.
        instruction: Text to put before every question.
    """
    from qcrd_core.inspect.export_sft import export_sft as write
    from qcrd_core.inspect.view import open_view

    done = write(open_view(run), target, trainer=trainer, kind=kind, instruction=instruction)
    print(f"  rows       {done.num_rows:,}")
    print(f"  questions  {done.num_questions:,}")
    print(f"  left out   {done.num_repeated:,} rationales equal to another one of their question")
    if kind == "preference":
        print(f"  no pair    {done.num_without_pair:,} questions have positives or negatives only")
    print(f"\nhead -1 {shlex.quote(str(target))}")
