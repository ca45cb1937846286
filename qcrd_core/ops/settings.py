"""All settings as a page, for the terminal, and as JSON Schemas for editors.

    python -m qcrd_core.ops.settings

writes docs/settings.md and configs/schema/*.json from the models, which hold every description.
`qcrd settings` prints the same.
"""

import json
import shlex
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from qcrd_core.config.names import Setting, sections_in, settings_of, unknown_setting
from qcrd_core.config.reference import (
    as_yaml,
    default_text,
    example,
    first_sentence,
    short_type,
    type_text,
)
from qcrd_core.config.run import RunConfig
from qcrd_core.data.spec import DatasetSpec
from qcrd_core.errors import ConfigError

MODELS: dict[str, type[BaseModel]] = {"run": RunConfig, "dataset": DatasetSpec}
"""What the two kinds of YAML files hold."""
_ROOT = Path(__file__).parents[2]
_WIDTH = 100
_COLUMNS = (28, 16, 12)
"""Width of setting, type and default in the terminal; the meaning has the rest."""
_HEADS = {
    "run": """## The run file

For `qcrd run --config FILE`. The sections `run`, `data`, `teacher` and `student` are required; all
others have defaults. An override on the command line has the form `teacher.num_samples=8`.""",
    "dataset": """## The data-set file

`data.dataset` names it. It says where the questions are and what an answer is.""",
}


def list_settings(kind: str, name: str | None = None) -> str:
    """Print settings for a terminal.

    Args:
        kind: `run` or `dataset`.
        name: A section or a setting; None is all.

    Returns:
        A table of at most 100 columns, or all about one setting.

    Raises:
        ConfigError: If there is no such section or setting.
    """
    known = settings_of(MODELS[kind])
    if name is not None and name in known and not known[name].holds_settings:
        return _card(known[name], kind)
    chosen = [
        setting
        for setting in known.values()
        if setting.name == name
        or (not setting.is_repeated and f"{setting.name}.".startswith(f"{name}." if name else ""))
    ]
    if not chosen:
        option = " --dataset" if kind == "dataset" else ""
        raise ConfigError(unknown_setting(str(name), list(known), f"qcrd settings{option}").text())
    return "\n\n".join(
        "\n".join([title, *(_line(setting) for setting in group)])
        for title, group in _groups(chosen)
    )


def render_page() -> str:
    """Write docs/settings.md."""
    parts = [_HEAD]
    for kind, model in MODELS.items():
        parts.append(_HEADS[kind])
        listed = (one for one in settings_of(model).values() if not one.is_repeated)
        for heading, group in _groups(listed):
            rows = [_row(setting) for setting in group]
            parts += [f"### {heading}", *_about(model, heading)]
            parts.append("\n".join([*_TABLE, *rows]))
    return "\n\n".join(parts) + "\n"


def render_schema(kind: str) -> str:
    """Write the JSON Schema of a kind of file."""
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **MODELS[kind].model_json_schema(),
    }
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def written_files() -> dict[Path, str]:
    """What `main` writes, by path."""
    schemas = {_ROOT / "configs" / "schema" / f"{kind}.schema.json": kind for kind in MODELS}
    return {
        _ROOT / "docs" / "settings.md": render_page(),
        **{path: render_schema(kind) for path, kind in schemas.items()},
    }


def main() -> None:
    """Write all; see the module's docstring."""
    for path, content in written_files().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")
        sys.stdout.write(f"{path.relative_to(_ROOT)}\n")


_HEAD = """\
# Settings

Written by `python -m qcrd_core.ops.settings` from the models in `qcrd_core/config/` and
`qcrd_core/data/spec.py`; edit the descriptions there, not this page. `qcrd settings` prints the
same, and `qcrd settings teacher.num_samples` explains one setting. Editors that know YAML schemas
complete and check a file that begins with `# yaml-language-server: $schema=PATH`; the schemas are
in `configs/schema/`. [papers.md](papers.md) says where the defaults of the method come from."""
_TABLE = ("| setting | type | default | meaning | example |", "|---|---|---|---|---|")


def _groups(settings: Iterable[Setting]) -> Iterator[tuple[str, list[Setting]]]:
    """Settings by first section, those for experts after the others."""
    sections: dict[str, list[Setting]] = {}
    for setting in settings:
        sections.setdefault(_section(setting), []).append(setting)
    for section, group in sections.items():
        for is_expert, title in ((False, section), (True, f"{section}, for experts")):
            part = [setting for setting in group if setting.is_expert == is_expert]
            if part:
                yield title, part


def _section(setting: Setting) -> str:
    return setting.name.partition(".")[0] if "." in setting.name else "file"


def _about(model: type[BaseModel], section: str) -> list[str]:
    """What a section is for; nothing if no class describes it."""
    field = model.model_fields.get(section)
    if field is None:
        return []
    sections = sections_in(field.annotation)
    text = field.description or (sections[0].__doc__ if len(sections) == 1 else None)
    return [_escape(" ".join(text.split()))] if text else []


def _meaning(setting: Setting) -> str:
    only = f" Only with type {' or '.join(setting.variants)}." if setting.variants else ""
    return f"{setting.meaning}{only}"


def _row(setting: Setting) -> str:
    cells = [
        f"`{setting.name}`",
        type_text(setting),
        f"`{default_text(setting)}`",
        _meaning(setting),
        f"`{as_yaml(example(setting))}`",
    ]
    return "| " + " | ".join(_escape(cell) for cell in cells) + " |"


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _line(setting: Setting) -> str:
    """A row of the terminal's table, with its meaning wrapped."""
    name = setting.name.partition(".")[2] or setting.name  # the section stands above
    cells = (name, short_type(setting), default_text(setting))
    start = "".join(f"  {text:<{width}}" for text, width in zip(cells, _COLUMNS, strict=True))
    indent = " " * (2 + sum(_COLUMNS) + 2 * len(_COLUMNS))
    # After a cell that is too long the meaning begins on the next line, in its own column.
    first = f"{start}  " if len(start) + 2 == len(indent) else f"{start.rstrip()}\n{indent}"
    room = _WIDTH - len(indent)
    lines = textwrap.wrap(first_sentence(setting.meaning), room, break_long_words=False)
    return (first + f"\n{indent}".join(lines)).rstrip()


def _card(setting: Setting, kind: str) -> str:
    value, parent = as_yaml(example(setting)), setting.name.rpartition(".")[0]
    keys = setting.name.split(".")
    nested = [f"{'  ' * depth}{key}:" for depth, key in enumerate(keys)]
    known = settings_of(MODELS[kind])
    is_in_list = parent in known and type_text(known[parent]).startswith("list")
    if is_in_list:
        nested[-1] = f"{'  ' * (len(keys) - 1)}- {keys[-1]}:"
    rows = (
        ("type", type_text(setting)),
        ("default", default_text(setting)),
        ("meaning", _meaning(setting)),
    )
    lines = [setting.name, ""]
    for title, text in rows:
        lines += textwrap.wrap(
            text, _WIDTH, initial_indent=f"  {title:<9}", subsequent_indent=" " * 11
        )
    lines += ["", "  In a file:", "", *(f"    {line}" for line in nested)]
    lines[-1] += f" {value}"
    if kind == "run" and not is_in_list:
        override = shlex.quote(f"{setting.name}={value}")
        lines += ["", "  On the command line:", "", f"    qcrd run --config FILE {override}"]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
