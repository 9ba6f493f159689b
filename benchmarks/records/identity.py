"""What identifies a row, and the newest row of each configuration."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from benchmarks.records.result import Row

Value: TypeAlias = str | int | float | bool | tuple[object, ...] | None


@dataclass(frozen=True)
class Field:
    """One of the things that two rows must have in common.

    Attributes:
        name: as the user names it.
        of: what a row has there.
        names: whether it says which configuration a row is of. The others are the conditions that it was measured
            under: of two rows of one configuration they must agree.
        text: of a value.
    """

    name: str
    of: Callable[[Row], Value]
    names: bool
    text: Callable[[Value], str] = str


def _load(row: Row) -> Value:
    return None if row.load is None else (row.load.shape, row.load.arrivals, row.load.clients)


def _format_load(value: Value) -> str:
    if not isinstance(value, tuple):
        return "none"
    shape, arrivals, clients = value
    if shape == "clients":
        return f"{clients} client{'s' if clients != 1 else ''}"
    return str(shape) if arrivals is None else f"{shape}, {arrivals}"


def _rate(row: Row) -> Value:
    """The rate that was asked for. One that was not is taken from what the machine gave, so that no two runs have the
    same: of it the share counts."""
    if row.load is None:
        return None
    share = row.load.rate_share
    return row.load.rate_per_s if share is None else f"{share:.0%} of the closed loop's"


def _machine(row: Row) -> Value:
    """The processor; of a row of a GPU, the GPU too."""
    about = row.environment
    gpu = row.gpu_before.name if row.gpu_before is not None else " and ".join(one.name for one in about.gpus)
    return " with ".join(filter(None, (about.cpu, gpu if row.cuda_graphs is not None else "")))


FIELDS: tuple[Field, ...] = (
    Field("subject", lambda row: row.artifact if row.subject is None else row.subject, names=True),
    Field("runtime", lambda row: row.runtime, names=True),
    Field("precision", lambda row: row.precision, names=True),
    Field("batch", lambda row: row.batch, names=True),
    Field("cuda-graphs", lambda row: row.cuda_graphs, names=True),
    Field("load", _load, names=True, text=_format_load),
    Field("sha256", lambda row: row.sha256, names=False, text=lambda value: str(value)[:12]),
    Field("threads", lambda row: row.threads, names=False),
    Field("device", lambda row: row.device, names=False),
    Field("machine", _machine, names=False),
    Field("rate", _rate, names=False),
)
"""The first of these that a user names with ``--across`` may differ."""


def latest(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Of each configuration, as it was asked for, the rows of the last run that has any, in the order of ``rows``."""
    runs: dict[tuple[Value, ...], tuple[str, str]] = {}
    for row in rows:
        runs[_identify_request(row)] = max(runs.get(_identify_request(row), ("", "")), (row.time, row.run))
    return tuple(row for row in rows if runs[_identify_request(row)][1] == row.run)


def _identify_request(row: Row) -> tuple[Value, ...]:
    threads, device = row.requested_threads or row.threads, row.requested_device or row.device
    return (*(field.of(row) for field in FIELDS if field.names), threads, device, _machine(row), _rate(row))


def configuration(row: Row, across: Collection[str] = ()) -> tuple[Value, ...]:
    """What the row is of, on what and with how many threads, but for what may differ. A run may measure one twice, as a
    search does that tries its best again."""
    kept = (field for field in FIELDS if field.names or field.name in ("threads", "device"))
    return tuple(field.of(row) for field in kept if field.name not in across)
