"""Rows as the schema versions 1 to 4 wrote them: one flat object of facts, samples and figures."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy import packing
from benchmarks.accuracy.predictions import Predictions
from runtimes import codec
from tests.benchmarks.results import FASTER, MACHINE

SAMPLES = tuple(0.001 + 1e-6 * (i * 37 % 101) for i in range(101))
"""Of one process; 101 were enough for p99 then."""

NEW_IN_2 = ("subject", "drop", "drop_interval")
NEW_IN_3 = (
    *("cuda_graphs", "device_p50_s", "device_p50_interval_s", "device_samples_s", "device_warmup_s"),
    *("gpu_before", "gpu_after", "device_peak_bytes", "energy_per_image_j"),
)
NEW_IN_4 = (
    *("p999_s", "p999_interval_s", "image_p50_s", "image_p50_interval_s", "verdict", "warnings", "disturbances"),
    *("requested_threads", "requested_device", "duration_s", "processes", "rounds", "field", "command", "sittings"),
    *("load", "roof", "answers", "flips", "evaluated_per_s", "unreadable_names"),
)
GONE_IN_4: dict[str, Any] = {
    "samples_s": SAMPLES,
    "warmup_s": (0.002, 0.0015),
    "compute_samples_s": (0.0009, 0.00095, 0.0009),
    "compute_warmup_s": (0.001,),
    "device_samples_s": None,
    "device_warmup_s": None,
}
NOTHING = dict.fromkeys(GONE_IN_4)
"""What the samples of a row were that was not measured."""

_NULL = (
    *("runtime_version", "provider", "arithmetic", "note", "p99_interval_s", "compute_p50_interval_s", "top5"),
    *("top5_interval", "agreement_interval", *NEW_IN_2, *NEW_IN_3, *NEW_IN_4),
)


def row(version: int, **changes: object) -> dict[str, Any]:
    """A row of onnxruntime in int8 that was measured beside a reference, with its figures."""
    identity = {**codec.encode(FASTER.result.identity)}
    identity["runtime"] = identity.pop("backend")
    del identity["file"], identity["size_bytes"], identity["size"]  # new in 5
    data: dict[str, Any] = {
        **dict.fromkeys(_NULL),
        "status": "ok",
        "reason": None,
        "run": "0123456789ab",
        "time": "2026-01-02T03:04:05+00:00",
        **identity,
        "device": "cpu",
        "threads": 2,
        "seed": 0,
        "environment": codec.encode(MACHINE),
        "p50_s": 0.00041,
        "p50_interval_s": [0.000405, 0.000416],
        "p90_s": 0.00044,
        "p90_interval_s": None,
        "p99_s": 0.00052,
        "compute_p50_s": 0.00039,
        "images_per_s": 2400.0,
        "load_s": 0.21,
        "first_s": 0.004,
        "ratio": 6.1,
        "ratio_interval": [5.95, 6.21],
        "peak_bytes": 187_200_000,
        "baseline_bytes": 120_000_000,
        "top1": 0.9349,
        "top1_interval": [0.93, 0.94],
        "images": 10_000,
        "unreadable": 0,
        "agreement": 0.9999,
        "drop": 0.0012,
        "drop_interval": [-0.0005, 0.0029],
        "schema_version": version,
        "warnings": [],
        "sittings": [],
        "unreadable_names": [],
    }
    if version == 4:
        data = {name: value for name, value in data.items() if name not in GONE_IN_4}
        data["sittings"] = codec.encode(FASTER.result.samples)
        data |= {"requested_threads": 2, "requested_device": "cpu", "processes": 3, "field": 0, "verdict": "faster"}
    else:
        data |= GONE_IN_4
    for first, names in ((2, NEW_IN_2), (3, NEW_IN_3), (4, NEW_IN_4)):
        if version < first:
            data = {name: value for name, value in data.items() if name not in names}
    if version < 3:
        del data["environment"]["gpus"]
    return {**data, **changes}


def written(path: Path, version: int, **changes: object) -> Path:
    """A file of that row."""
    path.write_text(json.dumps(row(version, **changes)) + "\n")
    return path


def pack_as_version_4(predictions: Predictions) -> dict[str, Any]:
    """The predictions as a row of version 4 had them; of 256 classes at most."""
    best, targets, classes = predictions.best[:, 0], predictions.targets, predictions.classes
    five = predictions.among_five
    parts = [bytes([(targets is not None) + 2 * (five is not None)])]
    parts.append(np.diff(predictions.indices, prepend=0).astype("<i8").tobytes())
    parts.append((best if targets is None else (best - targets) % classes).astype("<u1").tobytes())
    parts.append(b"" if targets is None else targets.astype("<u1").tobytes())
    parts.append(b"" if five is None else np.packbits(five).tobytes())
    parts.append(predictions.margins.astype("<f2").view(np.uint8).reshape(-1, 2).T.tobytes())
    packed = base64.b64encode(zlib.compress(b"".join(parts))).decode()
    return {**codec.encode(packing.pack_predictions(predictions, None)), "packed": packed}
