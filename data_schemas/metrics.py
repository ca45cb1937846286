"""Numbers over time: losses, hinges, accuracies, rates."""

from collections.abc import Mapping
from typing import Any, ClassVar

from data_schemas.light import dy
from data_schemas.table import Table


class Metrics(Table):
    """One row per measured number."""

    table_name: ClassVar[str] = "metrics"
    version: ClassVar[int] = 1
    example: ClassVar[Mapping[str, Any]] = {
        "stage": "train",
        "round": 3,
        "global_step": 1000,
        "name": "loss_label_nats",
        "value": 0.41,
    }

    stage = dy.String(
        primary_key=True, description="Stage that measured it: train, validation, ..."
    )
    round = dy.Int32(primary_key=True, description="Round; -1 before the first round.")
    global_step = dy.Int64(
        primary_key=True,
        min=0,
        description="Optimiser steps so far.",
        metadata={"unit": "steps"},
    )
    name = dy.String(primary_key=True, description="Metric, with its unit as suffix.")
    value = dy.Float64(nullable=True, description="Measured value; null if it is undefined.")
