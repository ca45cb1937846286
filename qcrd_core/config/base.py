"""What all sections of a configuration have in common."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Frozen, no unknown keys, field docstrings become descriptions."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=()
    )
    expert: ClassVar[frozenset[str]] = frozenset()
    """Settings that a first run needs no opinion on; lists show them apart from the others."""

    def changed(self, *names: str) -> list[str]:
        """Which of these settings are not at their default."""
        fields = type(self).model_fields
        return [name for name in names if getattr(self, name) != fields[name].default]
