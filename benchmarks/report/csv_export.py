"""Rows for a spreadsheet: CSV, in the units of ``Row``."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence

from benchmarks.accuracy.flips import Flips
from benchmarks.machine.gpu import GpuState
from benchmarks.records.result import Row
from benchmarks.records.roof import Roof

LEFT_OUT = ("environment", "sittings", "load", "answers")
"""What is no number or word: samples, packed answers, and the machine."""

PARTS: dict[str, type[GpuState] | type[Flips] | type[Roof]] = {
    "gpu_before": GpuState,
    "gpu_after": GpuState,
    "roof": Roof,
    "flips": Flips,
}
"""Fields that are columns of their own in CSV, one for each thing that they tell."""

OF_LOAD = ("shape", "arrivals", "rate_per_s", "clients", "achieved_per_s", "disk_bytes")
"""What of a load shape is no sample."""


def csv_text(rows: Sequence[Row]) -> str:
    """One line a row in the units of ``Row``; an interval is two columns, samples and environment are left out."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    fields = [field.name for field in dataclasses.fields(Row) if field.name not in LEFT_OUT]
    writer.writerow([heading for name in fields for heading in _headings(name)] + [f"load_{name}" for name in OF_LOAD])
    for row in rows:
        cells = [value for name in fields for value in _values(name, getattr(row, name))]
        writer.writerow(cells + [_cell(getattr(row.load, name, None)) for name in OF_LOAD])
    return out.getvalue()


def _headings(name: str) -> tuple[str, ...]:
    if name in PARTS:
        return tuple(
            heading for part in dataclasses.fields(PARTS[name]) for heading in _headings(f"{name}_{part.name}")
        )
    return (name.replace("interval", "low"), name.replace("interval", "high")) if "interval" in name else (name,)


def _values(name: str, value: object) -> tuple[object, ...]:
    if name in PARTS:
        parts = [(part.name, getattr(value, part.name, None)) for part in dataclasses.fields(PARTS[name])]
        return tuple(cell for part in parts for cell in _values(*part))
    if "interval" not in name:
        return (_cell(value),)
    return tuple(value) if isinstance(value, tuple) else ("", "")


def _cell(value: object) -> object:
    return "" if value is None else "; ".join(map(str, value)) if isinstance(value, tuple) else value
