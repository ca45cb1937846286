"""A step of `prefect deploy`: a file of configs/ becomes a deployment's parameters.

    build:
      - flows.presets.read_preset: {id: preset, path: configs/svamp.yaml}
    parameters: {config: "{{ preset.config }}"}

So a preset is written once, in configs/, and the run form in the UI opens with all of its values.
"""

from pathlib import Path
from typing import Any

from qcrd_core.config import load_config


def read_preset(path: str) -> dict[str, Any]:
    """Read a file of settings and check it, so that no deployment carries a broken preset.

    Args:
        path: YAML file, from the repository's root.

    Returns:
        `config`: the file's own settings; what it leaves out stays a default of the form.

    Raises:
        ConfigError: If the file is absent or breaks a rule.
    """
    settings = load_config(Path(path))
    return {"config": settings.model_dump(mode="json", exclude_unset=True)}
