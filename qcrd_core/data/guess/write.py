"""The two YAML files of `qcrd init`: a data set, and a first run. Each line says why it is so."""

import json
import os
import re
from pathlib import Path
from typing import Any

import yaml

from qcrd_core.data.guess.draft import Draft
from qcrd_core.errors import ConfigError

_WIDTH = 100
_BYTES_PER_TOKEN = 4
_STUDENT, _STUDENT_OF_ANY_SIGN = "google/t5-v1_1-base", "Qwen/Qwen2.5-0.5B"
# T5's vocabulary has no braces and no signs of code, and only western letters.
_UNKNOWN_TO_T5 = re.compile(r"[{}<>\\^`~]|[^\W\d_a-zA-Z\u00c0-\u017f]")
_ONE_LINE = re.compile(r"[ -~\u00a0-\u2027\u202a-\ud7ff]*")
_NOT_PRINTABLE = re.compile(r"[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_Line = tuple[str, str]
"""A line of YAML, and why it is so."""


def write_files(draft: Draft, folder: Path) -> tuple[Path, Path]:
    """Write the data set and the run of a draft.

    Args:
        draft: The data set.
        folder: Where to write; it is made if it is absent.

    Returns:
        `<name>.yaml` and `run.yaml`, new files.

    Raises:
        ConfigError: If one of the two exists, or cannot be written.
    """
    dataset, run = folder / f"{draft.spec.name}.yaml", folder / "run.yaml"
    existing = [path for path in (dataset, run) if path.exists()]
    if existing:
        msg = (
            f"qcrd init writes new files only; {existing[0]} exists. Rename it, or name another "
            "folder with --to."
        )
        raise ConfigError(msg)
    texts = {dataset: dataset_text(draft, folder), run: run_text(draft, dataset)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        msg = f"--to must be a folder that can be written; got {folder} ({error.strerror})."
        raise ConfigError(msg) from error
    return dataset, run


def dataset_text(draft: Draft, folder: Path) -> str:
    """The data set's YAML.

    Args:
        draft: The data set.
        folder: Where it will be; relative paths start there.

    Returns:
        At most 25 lines.
    """
    spec, found, kind = draft.spec, draft.found, draft.kind
    named = spec.source.model_dump(mode="json", exclude_defaults=True)
    source = {"type": spec.source.type, **named}
    for split in ("train", "validation", "test"):
        if split in source:
            source[split] = _relative(Path(source[split]), folder)
    columns = spec.columns.model_dump(mode="json", exclude_defaults=True)
    answer = spec.answer.model_dump(mode="json", exclude_defaults=True) | {
        "marker": "The answer is"
    }
    reasons = found.reasons
    whose = "the conversation's beginning" if spec.is_chat else "the question"
    lines: list[_Line] = [
        (f"name: {_flow(spec.name)}", "the file's name; samples are stored below it"),
        (f"source: {_flow(source)}", f"{counts(draft)}, by hash of {whose} unless a file is named"),
    ]
    if columns:
        why = f"question: {reasons['question']}; answer: {reasons['answer']}"
        lines.append((f"columns: {_flow(columns)}", why))
    if spec.question_template is not None:
        shown = f"question_template: {_quoted(spec.question_template)}"
        lines.append((shown, "the columns that together are a question"))
    if spec.duplicates != "refuse":
        lines.append((f"duplicates: {spec.duplicates}", "some rows repeat a question"))
    lines += [
        (f"answer: {_flow(answer)}", f"{kind.reason}; the marker comes before the answer"),
        ("prompt:", "what the teacher is asked"),
        (f"  instruction: {_flow(spec.prompt.instruction)}", "add what your task needs"),
        *_demonstration_lines(draft),
    ]
    looked_at = f"{draft.num_rows:,} rows" + ("" if draft.is_whole else ", its beginning only")
    head = [
        f"# Data set {spec.name}, as `qcrd init` read it ({looked_at}). Correct what it got wrong.",
        "# All settings: `qcrd settings --dataset`.",
    ]
    return "\n".join([*head, *_commented(lines)]) + "\n"


def run_text(draft: Draft, dataset: Path) -> str:
    """The YAML of a first run.

    Args:
        draft: The data set.
        dataset: Its YAML file, as a command names it.

    Returns:
        At most 25 lines.
    """
    questions, name = draft.questions, draft.spec.name
    longest = _most_tokens(questions["question"].to_list())
    golds = [*questions["gold_target"].drop_nulls(), *questions["gold_answer"].drop_nulls()]
    longest_gold = _most_tokens(golds)
    texts = [*golds, *draft.questions["question"].head(1_000)]
    is_plain = sum(bool(_UNKNOWN_TO_T5.search(text)) for text in texts) < len(texts) / 20
    student = _STUDENT if is_plain else _STUDENT_OF_ANY_SIGN
    why = "a model that reads and writes text well" if is_plain else "T5 lacks signs of these texts"
    written = _room(longest_gold, 256)
    lines: list[_Line] = [
        ("run:", ""),
        (f"  name: {_flow(name)}", "also the name of the student that it makes"),
        (f"  store: {_flow(f'.qcrd/{name}')}", "everything that the run makes"),
        ("data:", ""),
        (f"  dataset: {_flow(str(dataset))}", "relative to where you start qcrd"),
    ]
    if draft.label != "gold":
        lines.append((f"  label: {draft.label}", "not every training question has an answer"))
    lines += [
        ("teacher:", ""),
        ("  model: Qwen/Qwen2.5-7B-Instruct", "a hub name or folder; qcrd starts vLLM with it"),
        ("  # endpoints: [http://gpu1:8000/v1]", "or a server that already runs"),
        (
            f"  max_new_tokens: {written + 256}",
            f"reasoning, and answers of up to {longest_gold} tokens",
        ),
        (
            "# method: dss_gold",
            "`qcrd bench --recommend run.yaml` says which method suits these questions",
        ),
        ("student:", ""),
        (f"  model: {student}", why),
        (f"  max_input_tokens: {_room(longest, 256)}", f"the longest question has about {longest}"),
        (f"  max_target_tokens: {written}", "longer rationales are left out and counted"),
        ("evaluation:", ""),
        (f"  max_new_tokens: {_room(longest_gold, 64)}", "the student's answer at most"),
    ]
    head = [
        "# A first run, written by `qcrd init`. Lengths are estimates: 4 bytes per token, doubled.",
        "# All other settings have defaults: `qcrd settings` lists them.",
    ]
    return "\n".join([*head, *_commented(lines)]) + "\n"


def _demonstration_lines(draft: Draft) -> list[_Line]:
    if not draft.demonstrations:
        return []
    examples = draft.spec.prompt.demonstrations
    if examples:
        shown = [f"    - {_flow(example.model_dump())}" for example in examples]
        title = ("  demonstrations:", "training questions with the file's own reasoning")
        return [title, *((line, "") for line in shown)]
    title = ("  # demonstrations:", "the file has no reasoning: fill it in and remove the #")
    blank = [example.model_dump() | {"rationale": "..."} for example in draft.demonstrations]
    return [title, *((f"  #   - {_flow(example)}", "") for example in blank)]


def _commented(lines: list[_Line]) -> list[str]:
    """Each reason behind its line or, if there is no room, above it."""
    width = max((len(line) for line, _ in lines if len(line) <= _WIDTH // 2), default=0) + 2
    written = []
    for line, reason in lines:
        indent = " " * (len(line) - len(line.lstrip()))
        if not reason:
            written.append(line)
        elif len(line) < width and width + len(reason) + 2 <= _WIDTH:
            written.append(f"{line:<{width}}# {reason}")
        else:
            written += [f"{indent}# {reason}", line]
    return written


def _flow(value: Any) -> str:
    """A value as YAML on one line."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_flow(item)}' for key, item in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, str) and not _ONE_LINE.fullmatch(value):
        return _quoted(value)
    # In a list, because a text with a comma needs quotes there.
    text = yaml.safe_dump([value], default_flow_style=True, width=2**20, allow_unicode=True)
    return str(text).strip()[1:-1]


def _quoted(text: str | None) -> str:
    """A text in double quotes, in which YAML and JSON know the same escapes."""
    shown = json.dumps(text, ensure_ascii=False)
    return _NOT_PRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", shown)


def _relative(path: Path, folder: Path) -> str:
    try:
        shown = Path(os.path.relpath(path, folder.absolute()))
    except ValueError:  # another drive
        return str(path)
    return str(path if len(shown.parts) > 6 else shown)


def counts(draft: Draft) -> str:
    """Questions of each split, of the rows that were looked at."""
    sizes = {
        name: draft.questions.filter(split=name).height for name in ("train", "validation", "test")
    }
    return ", ".join(f"{size:,} {name}" for name, size in sizes.items())


def _most_tokens(texts: list[str]) -> int:
    size = max((len(text.encode()) for text in texts), default=0)
    return -(-size // _BYTES_PER_TOKEN)


def _room(tokens: int, least: int) -> int:
    """A limit that is safe for twice as many tokens, as a multiple of 64."""
    return max(least, -(-2 * tokens // 64) * 64)
