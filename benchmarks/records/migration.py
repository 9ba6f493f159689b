"""Rows of the schema versions 1 to 4 as results: their figures stood beside the samples, in one flat object."""

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
"""The last version whose rows had figures among their fields."""

LAST_OF_ONE_PROCESS = 3
"""The last version whose rows had the samples themselves, in place of sittings."""

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
"""The parts of a result, and what their fields were called."""

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

TOP = ("status", "run", "time", "environment", "load")
"""Fields that are as they were."""

SHARES = ("top1", "top5", "agreement", "drop", "ratio")
TIMES = ("p50", "p90", "p99", "p999", "compute_p50", "device_p50", "image_p50")
AGAINST_REFERENCE = ("ratio", "agreement", "drop")

_FIGURES = {name: (name, f"{name}_interval") for name in SHARES} | {
    name: (f"{name}_s", f"{name}_interval_s") for name in TIMES
}
"""The estimates, and the fields that value and interval stood in."""

_SERIES = {
    name: (f"{prefix}samples_s", f"{prefix}warmup_s")
    for name, prefix in (("latency", ""), ("compute", "compute_"), ("device", "device_"))
}
"""The clocks of one process, and the fields that samples and warm-up stood in."""

_KNOWN = {
    *(name for names in (*PARTS.values(), *_FIGURES.values(), *_SERIES.values(), TOP) for name in names),
    *("reason", "note", "warnings", "disturbances", "verdict", "images", "images_per_s", "load_s", "first_s"),
    *("peak_bytes", "baseline_bytes", "unreadable", "unreadable_names", "evaluated_per_s", "roof", "flips"),
    *("answers", "sittings", "schema_version"),
}

NOT_SETTLED = "the warm-up reached its limit before three windows agreed"
"""What a note of the versions 1 to 3 said of the latency's warm-up, which was told nowhere else."""

WORKER_WARNINGS = {
    "inputs-subnormal": "input values are subnormal",
    "inputs-flat": "inputs are one value throughout",
    "inputs-equal": "^all inputs are the same$",
    "inputs-too-few": "different inputs took turns",
    "outputs-constant": "^all the inputs gave the same output$",
}
"""What workers said of their inputs, by code: a pattern of the sentence. All other warnings follow from the samples."""


def migrate_row(data: Mapping[str, Any], version: int) -> Json:
    """The parsed JSON of a row of version 1 to 4 as that of a result.

    The samples of versions 1 to 3 become the one round of one process that began with the run, and their figures stay
    as they were recorded. Of version 4 those against a reference stay, until ``benchmarks.records.store.read`` finds
    the reference. A p99 of fewer samples than it is given from today is left out.

    Raises:
        ArtifactError: a field is not known, or has not the type that it had.
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
    """The parsed JSON of a result, whose load has the shape's present name: rows of version 0.1 had others, and said
    apart from the shape how requests arrived."""
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
    """All figures, or those against a reference alone."""
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
    """The one process, if there was any."""
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
    """The predictions of a row of version 4: a zlib stream of the arrays, one after another and little-endian.

    A byte of flags; the images' places as steps from one to the next; the best classes, less the true ones modulo the
    classes where these are known; these; a bit for each image; the margins, their low bytes first.

    Raises:
        ArtifactError: they are damaged.
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
