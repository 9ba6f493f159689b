"""Results for a spreadsheet: CSV, a column for each fact that is no sample and for each figure."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence

from benchmarks.accuracy.differences import Flips
from benchmarks.analysis.figures import Figures
from benchmarks.machine.gpu import GpuState
from runtimes.errors import Reason
from runtimes.escaping import csv_cell


def _parts(prefix: str, path: str, cls: type[GpuState] | type[Flips]) -> dict[str, str]:
    """A column for each field; two for an interval."""
    found: dict[str, str] = {}
    for name in (field.name for field in dataclasses.fields(cls)):
        ends = {"low": ".0", "high": ".1"} if "interval" in name else {"": ""}
        found |= {f"{prefix}_{name.replace('interval', end)}": f"{path}.{name}{index}" for end, index in ends.items()}
    return found


def _estimates(*names: str, unit: str = "") -> dict[str, str]:
    """Three columns of each: the value and the ends of its interval."""
    ends = {"": "value", "_low": "low", "_high": "high"}
    return {f"{name}{word}{unit}": f"{name}.{end}" for name in names for word, end in ends.items()}


def _named(path: str, *names: str, prefix: str = "") -> dict[str, str]:
    """Columns that are called as the fact is, behind the prefix."""
    return {f"{prefix}{name}": f"{path}{name}" for name in names}


COLUMNS: dict[str, str] = {
    **_named("result.", "status", "reason", "run", "time"),
    **_named("result.identity.", "artifact", "sha256", "variant", "weights", "trained", "backend"),
    "device": "result.ran.device",
    **_named("result.identity.", "precision", "batch"),
    "threads": "result.ran.threads",
    "data": "result.identity.data",
    "seed": "result.asked.seed",
    **_named("result.ran.", "backend_version", "provider", "arithmetic"),
    "note": "result.note",
    **_estimates("p50", "p90", "p99", "compute_p50", unit="_s"),
    "images_per_s": "images_per_s",
    **_estimates("ratio"),
    **_named("", "load_s", "first_s", "peak_bytes", "baseline_bytes"),
    **_estimates("top1", "top5"),
    "images": "images",
    "unreadable": "result.evaluation.unreadable",
    **_estimates("agreement", "top1_change"),
    "subject": "result.identity.subject",
    "cuda_graphs": "result.asked.cuda_graphs",
    **_estimates("device_p50", unit="_s"),
    **_parts("gpu_before", "result.gpu.before", GpuState),
    **_parts("gpu_after", "result.gpu.after", GpuState),
    "device_peak_bytes": "result.gpu.peak_bytes",
    "energy_per_image_j": "result.gpu.energy_per_image_j",
    **_named("result.gpu.", "energy_error_share", "power_w", prefix="gpu_"),
    **_estimates("p999", "image_p50", unit="_s"),
    **_named("", "verdict", "validity", "validity_reason", "warnings", "disturbances"),
    **_named("result.asked.", "threads", "device", prefix="requested_"),
    **_named("result.asked.", "duration_s", "processes", "rounds", "group", "command"),
    **_named("result.roof.", "multiply_adds", "traffic_bytes", "peak_multiply_adds_per_s", prefix="roof_"),
    **_named("result.roof.", "bandwidth_bytes_per_s", "least_s", prefix="roof_"),
    "roofline_share": "roofline_share",
    "roof_bound": "result.roof.bound",
    **_parts("changed_predictions", "changed_predictions", Flips),
    "evaluated_per_s": "result.evaluation.images_per_s",
    "unreadable_names": "result.evaluation.unreadable_names",
    "schema_version": "result.schema_version",
    **_named("result.load.", "shape", "rate_per_s", "clients", prefix="load_"),
    **_named("result.load.", "achieved_per_s", "disk_bytes", prefix="load_"),
    **_named("result.identity.", "file", "size_bytes"),
    **_named("result.asked.baseline.", "backend", "precision", "file", prefix="baseline_"),
    "quick": "result.asked.quick",
    **_estimates("device_p99", "enqueue_p50", "to_device_p50", "to_host_p50", unit="_s"),
    **_named("", "throughput", "device_idle_share"),
    **_estimates("trtexec_p50", unit="_s"),
    **_named("", "trtexec_ratio"),
}
"""The headings, and where the values stand in ``Figures``."""


def record(figures: Figures) -> dict[str, object]:
    """The line of one result by its headings: text, numbers, and ``None`` where there is nothing. Several words of one
    column stand in one text."""
    return {heading: _plain(value_at(figures, path)) for heading, path in COLUMNS.items()}


def csv_text(results: Sequence[Figures]) -> str:
    """One line a result; an estimate is three columns. Samples and the environment are left out."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for figures in results:
        writer.writerow(map(csv_cell, record(figures).values()))
    return out.getvalue()


def value_at(figures: Figures, path: str) -> object:
    """What stands at the end of the path; ``None`` where it ends early."""
    value: object = figures
    for name in path.split("."):
        if value is not None:
            value = value[int(name)] if isinstance(value, tuple) else getattr(value, name)
    return value


def _plain(value: object) -> object:
    if isinstance(value, Reason):
        return value.sentence
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {estimate.value:.6g}" for name, estimate in value.items()) or None
    return "; ".join(map(str, value)) if type(value) is tuple else value
