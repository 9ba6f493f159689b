"""Rows for a spreadsheet: CSV, in the units of ``Row``."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence

from benchmarks.gpu import GpuState
from benchmarks.results import Row

LEFT_OUT = (
    *("environment", "samples_s", "warmup_s", "compute_samples_s", "compute_warmup_s"),
    *("device_samples_s", "device_warmup_s"),
)

STATES = ("gpu_before", "gpu_after")
"""Columns of their own in CSV, one for each thing that a GPU tells."""


def csv_text(rows: Sequence[Row]) -> str:
    """One line a row in the units of ``Row``; an interval is two columns, samples and environment are left out."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    fields = [field.name for field in dataclasses.fields(Row) if field.name not in LEFT_OUT]
    writer.writerow([heading for name in fields for heading in _headings(name)])
    for row in rows:
        writer.writerow([value for name in fields for value in _values(name, getattr(row, name))])
    return out.getvalue()


def _headings(name: str) -> tuple[str, ...]:
    if name in STATES:
        return tuple(f"{name}_{field.name}" for field in dataclasses.fields(GpuState))
    return (name.replace("interval", "low"), name.replace("interval", "high")) if "interval" in name else (name,)


def _values(name: str, value: object) -> tuple[object, ...]:
    if name in STATES:
        states = [] if value is None else [getattr(value, field.name) for field in dataclasses.fields(GpuState)]
        return tuple(map(_cell, states)) or ("",) * len(_headings(name))
    if "interval" not in name:
        return (_cell(value),)
    return tuple(value) if isinstance(value, tuple) else ("", "")


def _cell(value: object) -> object:
    return "" if value is None else "; ".join(map(str, value)) if isinstance(value, tuple) else value
