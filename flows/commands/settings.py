"""The command `qcrd settings`: what a YAML file may set.

qcrd settings                        all settings of a run
qcrd settings training               those of one section
qcrd settings teacher.num_samples    all about one
qcrd settings --dataset              the same of a data-set file
"""


def settings(key: str | None = None, *, dataset: bool = False) -> None:
    """List the settings of a run or of a data set, or explain one.

    Args:
        key: A section or a setting, for example teacher.num_samples. Without it all are listed.
        dataset: The settings of a data-set file instead of a run's.
    """
    from qcrd_core.ops.settings import list_settings

    print(list_settings("dataset" if dataset else "run", key))
    if key is None:
        example = "answer.kind --dataset" if dataset else "teacher.num_samples"
        print(f"\nqcrd settings {example}")
