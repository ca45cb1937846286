"""What all sections of a configuration have in common."""

from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
MAX_SEED = 2**63 - 1
MAX_COUNT = 1_000_000_000
"""Of questions, steps or tokens; what is counted with 32 bits stays within them."""
MAX_TOKENS = 65_536
"""Longest text of a student: each of its texts gets so many places in memory."""
MAX_BATCH = 65_536
MAX_PROCESSES = 4096
MAX_SECONDS = 1e9
MAX_TEACHERS = 100
"""Further teachers of a run."""
THINK_TAGS = ("<think>", "</think>")
"""Opening and closing tag of a thought, as most models that reason write them."""

Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=100)]
"""What becomes the name of a folder in a store: it cannot lead out of that folder."""
Fingerprint = Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
"""From `qcrd_core.ids.fingerprint`."""


def _stays_inside(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\x00" in path:
        msg = "a path must stay inside its folder"
        raise ValueError(msg)
    return path


InnerPath = Annotated[str, AfterValidator(_stays_inside)]
"""A file below a published folder, relative to it."""


class Section(BaseModel):
    """Frozen, no unknown keys, field docstrings become descriptions."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
        # Neither a rate nor a weight can be infinite, and no text is longer than its file.
        allow_inf_nan=False,
        str_max_length=262_144,
    )
    expert: ClassVar[frozenset[str]] = frozenset()
    """Settings that a first run needs no opinion on; lists show them apart from the others."""

    later: ClassVar[frozenset[str]] = frozenset()
    """Settings that are newer than runs and generations named by a hash of this section. Dumps
    leave them out at their default, so that the old ones keep their names."""

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = serialize(self)
        for name in self.later - set(self.changed(*self.later)):
            content.pop(name, None)
        return content

    def changed(self, *names: str) -> list[str]:
        """Which of these settings are not at their default."""
        fields = type(self).model_fields
        return [name for name in names if getattr(self, name) != fields[name].default]
