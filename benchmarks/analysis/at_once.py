"""The throughput of several GPUs that work at the same time, from the results of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.analysis import ranking
from benchmarks.analysis.figures import Figures
from benchmarks.format import number
from runtimes.devices import parse_device


@dataclass(frozen=True)
class DeviceTotal:
    """The throughput of one configuration on several devices at once.

    Attributes:
        name: The configuration in words.
        batch: The number of images in one call of each device.
        devices: The devices.
        images_per_s: The sum over the devices, while all work.
        alone_per_s: The sum over the devices, each measured alone; ``None`` if one was not.
    """

    name: str
    batch: int
    devices: tuple[str, ...]
    images_per_s: float
    alone_per_s: float | None

    @property
    def efficiency(self) -> float | None:
        """The throughput as a share of what the devices reach alone."""
        return None if self.alone_per_s is None else self.images_per_s / self.alone_per_s

    def __str__(self) -> str:
        """Return the total in one sentence."""
        where = " and ".join(parse_device(device).numbered for device in self.devices)
        efficiency = "" if self.efficiency is None else f", {self.efficiency:.0%} of the sum of each alone"
        return f"{self.name}, batch {self.batch}: {number(self.images_per_s)} images/s on {where} at once{efficiency}."


def totals(results: Sequence[Figures]) -> tuple[DeviceTotal, ...]:
    """Return the total of each configuration that was measured on all its devices at once, in the order of results."""
    groups: dict[tuple[object, ...], list[Figures]] = {}
    for figures in results:
        if figures.result.asked.at_once:
            groups.setdefault((*_configuration(figures), figures.result.asked.at_once), []).append(figures)
    found = []
    for rows in groups.values():
        of = rows[0].result
        rates = [row.images_per_s for row in rows if row.result.status == "ok" and row.images_per_s is not None]
        if len(rates) < len(of.asked.at_once):
            continue
        alone = [
            row.images_per_s
            for row in results
            if not row.result.asked.at_once
            and row.result.asked.device in of.asked.at_once
            and _configuration(row) == _configuration(rows[0])
            and row.images_per_s is not None
        ]
        whole = math.fsum(alone) if len(alone) == len(of.asked.at_once) else None
        name = ranking.name(of)
        found.append(DeviceTotal(name, of.identity.batch, of.asked.at_once, math.fsum(rates), whole))
    return tuple(found)


def _configuration(figures: Figures) -> tuple[object, ...]:
    """Return what a result has in common with the same configuration on another device of its run."""
    result = figures.result
    of = result.identity
    return result.run, of.subject, of.file, of.backend, of.precision, of.batch, result.asked.cuda_graphs
