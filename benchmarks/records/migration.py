"""Conversion of rows of schema versions 1 to 4, flat objects with figures beside the samples, into results."""

from __future__ import annotations

import base64
import binascii
import itertools
import json
import re
import zlib
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from benchmarks.accuracy import packing
from benchmarks.accuracy.packing import PackedPredictions
from benchmarks.accuracy.predictions import KEPT, Predictions
from benchmarks.records.plan import FORMER_SHAPES
from benchmarks.stats import intervals
from runtimes import codec
from runtimes.errors import ArtifactError, quote

Json: TypeAlias = dict[str, Any]

LAST = 4
"""The last schema version whose rows have figures among their fields."""

LAST_OF_ONE_PROCESS = 3
"""The last schema version whose rows have the samples of one process in their own fields."""

PARTS = {
    "identity": (
        *("subject", "artifact", "sha256", "variant", "weights", "trained", "precision", "runtime", "batch", "data"),
    ),
    "asked": (
        *("requested_threads", "requested_device", "cuda_graphs", "duration_s", "processes", "rounds", "seed", "field"),
        "command",
    ),
    "ran": ("device", "threads", "runtime_version", "provider", "arithmetic"),
    "gpu": ("gpu_before", "gpu_after", "device_peak_bytes", "energy_per_image_j"),
}
"""The parts of a result, and the old names of their fields."""

RENAMED = {
    "runtime": "backend",
    "requested_threads": "threads",
    "requested_device": "device",
    "field": "group",
    "runtime_version": "backend_version",
    "gpu_before": "before",
    "gpu_after": "after",
    "device_peak_bytes": "peak_bytes",
}
"""The new names of renamed fields."""

TOP = ("status", "run", "time", "environment", "load")
"""The fields that did not change."""

SHARES = ("top1", "top5", "agreement", "drop", "ratio")
"""The recorded figures without a unit."""

TIMES = ("p50", "p90", "p99", "p999", "compute_p50", "device_p50", "image_p50")
"""The recorded figures in seconds."""

AGAINST_REFERENCE = ("ratio", "agreement", "drop")
"""The recorded figures that compare with the reference."""

_FIGURES = {name: (name, f"{name}_interval") for name in SHARES} | {
    name: (f"{name}_s", f"{name}_interval_s") for name in TIMES
}
"""The recorded figures, and the old names of the fields with value and interval."""

_SERIES = {
    name: (f"{prefix}samples_s", f"{prefix}warmup_s")
    for name, prefix in (("latency", ""), ("compute", "compute_"), ("device", "device_"))
}
"""The clocks of a process, and the old names of the fields with samples and warm-up."""

_KNOWN = {
    *(name for names in (*PARTS.values(), *_FIGURES.values(), *_SERIES.values(), TOP) for name in names),
    *("reason", "note", "warnings", "disturbances", "verdict", "images", "images_per_s", "load_s", "first_s"),
    *("peak_bytes", "baseline_bytes", "unreadable", "unreadable_names", "evaluated_per_s", "roof", "flips"),
    *("answers", "sittings", "schema_version"),
}

NOT_SETTLED = "the warm-up reached its limit before three windows agreed"
"""The note of versions 1 to 3 about a warm-up of the latency that did not stabilise. No other field records it."""

WORKER_WARNINGS = {
    "inputs-subnormal": "input values are subnormal",
    "inputs-flat": "inputs are one value throughout",
    "inputs-equal": "^all inputs are the same$",
    "inputs-too-few": "different inputs took turns",
    "outputs-constant": "^all the inputs gave the same output$",
}
"""The warnings of workers about their inputs: a pattern of the sentence by code. Other warnings follow from samples."""


def migrate_row(data: Mapping[str, Any], version: int) -> Json:
    """Convert the parsed JSON of a row of schema version 1 to 4 into the JSON of a result.

    The samples of versions 1 to 3 become one round of one process that began with the run, and their figures are kept
    as recorded. Of version 4, the figures against a reference are kept until ``benchmarks.records.store.read`` finds
    the reference. A p99 of fewer samples than required today is dropped.

    Args:
        data: The parsed JSON.
        version: The schema version of the row.

    Raises:
        ArtifactError: A field is unknown or has the wrong type.
    """
    gone = {name for names in _SERIES.values() for name in names} if version == LAST else set()
    unknown = [name for name in data if name not in _KNOWN - gone]
    if unknown:
        raise ArtifactError(f"unknown field {quote(unknown[0])!r}", code="field-unknown")
    old = version <= LAST_OF_ONE_PROCESS
    result: Json = {name: data.get(name) for name in TOP}
    for part, names in PARTS.items():
        result[part] = {RENAMED.get(name, name): data.get(name) for name in names}
    sentences = {name: data[name] for name in ("reason", "note") if data.get(name) is not None}
    recorded = {name: {"code": "recorded", "sentence": sentence} for name, sentence in sentences.items()}
    result["reason"], result["notes"] = recorded.get("reason"), [recorded["note"]] if "note" in recorded else []
    result["warnings"] = [
        {"code": code, "sentence": sentence}
        for sentence in ([] if old else _items(data, "warnings"))
        for code, pattern in WORKER_WARNINGS.items()
        if re.search(pattern, str(sentence))
    ]
    result["samples"] = _build_samples(data) if old else data.get("sittings", [])
    if data.get("answers") is not None:
        packed = codec.decode(PackedPredictions, data["answers"])
        result["predictions"] = codec.encode(packing.pack_predictions(unpack_version_4(packed), packed.labels))
    if data.get("unreadable") is not None:
        names, rate = data.get("unreadable_names", []), data.get("evaluated_per_s")
        result["evaluation"] = {"unreadable": data["unreadable"], "unreadable_names": names, "images_per_s": rate}
    roof, derived = data.get("roof"), ("least_s", "share", "bound")
    if isinstance(roof, dict):
        roof = {name: value for name, value in roof.items() if name not in derived}
    result["roof"] = roof
    if data.get("status") == "ok":
        result["recorded"] = _recorded(data, complete=old)
    return result


def rename_shape(data: Json) -> Json:
    """Return the parsed JSON of a result with the current name of its load shape.

    Rows of version 0.1 have other names, and a separate field for the arrival process.
    """
    load = data.get("load")
    if not isinstance(load, dict):
        return data
    load = dict(load)
    arrivals, shape = load.pop("arrivals", None), load.get("shape")
    load["shape"] = "fixed-rate" if arrivals == "fixed" else FORMER_SHAPES.get(str(shape), shape)
    return {**data, "load": load}


def _items(data: Mapping[str, Any], name: str, count: int | None = None) -> list[Any]:
    items = data.get(name) or []
    if not isinstance(items, list) or count not in (None, len(items)):
        expected = "a list" if count is None else f"a list of {count}"
        raise ArtifactError(
            f"field {name!r}: expected {expected}, got {quote(json.dumps(items))}", code="field-type-mismatch"
        )
    return items


def _recorded(data: Mapping[str, Any], complete: bool) -> Json:
    """Return all recorded figures if ``complete``, otherwise those against a reference."""
    figures = (*TIMES, *SHARES) if complete else AGAINST_REFERENCE
    kept = ("images", "images_per_s", "verdict") if complete else ("verdict", "flips")
    few = complete and len(_items(data, "samples_s")) < intervals.MIN_SAMPLES[0.99]
    estimates = {}
    for name in figures:
        value, interval = (data.get(field) for field in _FIGURES[name])
        if value is not None and not (few and name == "p99"):
            low, high = (None, None) if interval is None else _items(data, _FIGURES[name][1], 2)
            estimates[name] = {"value": value, "low": low, "high": high}
    return {"complete": complete, "estimates": estimates, **{name: data.get(name) for name in kept}}


def _build_samples(data: Mapping[str, Any]) -> list[Json]:
    """Return the samples of the one process, or an empty list for a row without samples."""
    if data.get("samples_s") is None:
        return []
    process: Json = {name: data.get(name) for name in ("load_s", "first_s", "peak_bytes", "baseline_bytes")}
    for clock, (samples, warmup) in _SERIES.items():
        settled = clock != "latency" or NOT_SETTLED not in str(data.get("note"))
        rounds = [data[samples]] if data.get(samples) else []
        series = {"warmup_s": data.get(warmup) or [], "settled": settled, "rounds_s": rounds}
        process[clock] = None if clock == "device" and data.get(samples) is None else series
    return [{**process, "starts_s": [0.0]}]


def unpack_version_4(packed: PackedPredictions) -> Predictions:
    """Unpack the predictions of a row of schema version 4: a zlib stream of little-endian arrays, one after another.

    The stream holds a byte of flags; the positions of the images as differences; the top-1 classes, minus the labels
    modulo the number of classes if the labels are known; the labels; a bit for each image; and the margins, low bytes
    first.

    Raises:
        ArtifactError: The stream is damaged.
    """
    packing.check_size(packed)
    images = packed.images
    number = np.dtype("<u1" if packed.classes <= 1 << 8 else "<u2" if packed.classes <= 1 << 16 else "<u4")
    most = 1 + images * (8 + 2 * number.itemsize + 2) + (images + 7) // 8
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(base64.b64decode(packed.packed, validate=True), most + 1)
    except (binascii.Error, ValueError, zlib.error) as error:
        raise packing.damage_error(str(error)) from error
    flags = content[0] if content else 0
    truth, among_five = bool(flags & 1), bool(flags & 2)
    sizes = [8 * images, number.itemsize * images, truth * number.itemsize * images, among_five * ((images + 7) // 8)]
    ends = np.cumsum([1, *sizes, 2 * images])
    whole = unpacker.eof and not unpacker.unused_data and ends[-1] == len(content)
    if not whole or flags != truth + 2 * (truth and packed.classes > KEPT):
        raise packing.damage_error(f"not {images} images")
    steps, best, targets, bits, margins = (content[start:end] for start, end in itertools.pairwise(ends))
    arrays = {
        "steps": np.frombuffer(steps, "<i8"),
        "best": np.frombuffer(best, number),
        "margins": np.frombuffer(margins, np.uint8).reshape(2, images).T.copy().view("<f2")[:, 0],
    }
    if truth:
        arrays["targets"] = np.frombuffer(targets, number)
    if among_five:
        arrays["among_five"] = np.unpackbits(np.frombuffer(bits, np.uint8), count=images)
    return packing.restore(packed, arrays)
