"""What a page draws, as blocks of a document; nothing else shows them."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.records.findings import Findings
from benchmarks.records.result import Row
from exporter.document.blocks import Block


@dataclass(frozen=True)
class RunPlots(Block):
    """Configurations that are compared: latency, accuracy, throughput, roofline and drift."""

    rows: tuple[Row, ...]


@dataclass(frozen=True)
class LoadPlots(Block):
    """Load shapes of one network: service and response, sweeps and cold starts."""

    rows: tuple[Row, ...]


@dataclass(frozen=True)
class FindingsPlots(Block):
    """The panels of an experiment."""

    findings: Findings
