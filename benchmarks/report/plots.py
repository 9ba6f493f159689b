"""What a page draws, as blocks of a document; nothing else shows them."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.analysis.figures import Figures
from benchmarks.records.findings import Findings
from exporter.document.blocks import Block


@dataclass(frozen=True)
class RunPlots(Block):
    """Configurations that are compared: latency, accuracy, throughput, roofline and drift."""

    results: tuple[Figures, ...]


@dataclass(frozen=True)
class LoadPlots(Block):
    """Load shapes of one network: service and response, sweeps and cold starts."""

    results: tuple[Figures, ...]


@dataclass(frozen=True)
class FindingsPlots(Block):
    """The panels of an experiment."""

    findings: Findings
