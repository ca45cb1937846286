"""Templates such as `{body} {question}`; filling them never looks up an attribute."""

from collections.abc import Mapping
from string import Formatter

CHOICES = "choices"
"""Placeholder in a question template for the lettered choices."""


def template_fields(template: str) -> tuple[str, ...]:
    """Names in braces of a question template, in order.

    Args:
        template: Text with `{name}`; `{{` and `}}` stand for braces.

    Returns:
        The names.

    Raises:
        ValueError: If a brace is left open, or a placeholder is more than a name.
    """
    names = []
    for _, name, form, conversion in Formatter().parse(template):
        if name is None:
            continue
        if not name or form or conversion:
            msg = f"question_template must hold plain {{name}} placeholders; got {template!r}"
            raise ValueError(msg)
        names.append(name)
    return tuple(names)


def fill_template(template: str, values: Mapping[str, str]) -> str:
    """Put values into a template. Braces within a value are kept.

    Args:
        template: As for `template_fields`.
        values: One per name; names are looked up whole, never as attributes.

    Returns:
        The text.
    """
    return "".join(
        literal + (values[name] if name is not None else "")
        for literal, name, _, _ in Formatter().parse(template)
    )
