"""Short names for rows: their weights and the machine and device they were taken on."""

from __future__ import annotations

from benchmarks.format import ABSENT as ABSENT
from benchmarks.format import milliseconds as milliseconds
from benchmarks.format import points as points
from benchmarks.records.result import Row


def locate(row: Row) -> tuple[str, ...]:
    """The machine and the device that the row was to be measured on."""
    about = row.environment
    return (about.cpu, *(gpu.name for gpu in about.gpus), row.requested_device or row.device)


def weights_of(row: Row) -> str:
    """The weights in words; those that were never trained are marked so wherever they stand."""
    if row.trained is None:
        return f"{row.variant}, foreign file" if row.variant != row.artifact else "foreign file"
    return (
        f"{row.variant}, {row.weights} weights" if row.trained else f"{row.variant}, *untrained* {row.weights} weights"
    )
