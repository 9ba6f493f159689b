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
    unknown = [name for name in data if name not in _KNOWN or (version == LAST and _is_gone(name))]
    if unknown:
        raise ArtifactError(f"unknown field {quote(unknown[0])!r}", code="field-unknown")
    old = version <= LAST_OF_ONE_PROCESS
    result: Json = {name: data.get(name) for name in TOP}
    for part, names in PARTS.items():
        result[part] = {RENAMED.get(name, name): data.get(name) for name in names}
    result["reason"] = None if data.get("reason") is None else _as_recorded(data["reason"])
    result["notes"] = [] if data.get("note") is None else [_as_recorded(data["note"])]
    result["warnings"] = [] if old else list(_find_worker_warnings(_items(data, "warnings")))
    result["samples"] = _build_samples(data) if old else data.get("sittings", [])
    if data.get("answers") is not None:
        result["predictions"] = _repack(data["answers"])
    if data.get("unreadable") is not None:
        names, rate = data.get("unreadable_names", []), data.get("evaluated_per_s")
        result["evaluation"] = {"unreadable": data["unreadable"], "unreadable_names": names, "images_per_s": rate}
    if data.get("roof") is not None:
        derived = ("least_s", "share", "bound")
        result["roof"] = {name: value for name, value in _parts(data, "roof").items() if name not in derived}
    if data.get("status") == "ok":
        result["recorded"] = _recorded(data) if old else _recorded_against_reference(data)
    return result


def _is_gone(name: str) -> bool:
    return any(name in names for names in _SERIES.values())


def _parts(data: Mapping[str, Any], name: str) -> Json:
    if not isinstance(data[name], dict):
        raise _mismatch(name, "an object", data[name])
    return dict(data[name])


def _items(data: Mapping[str, Any], name: str, count: int | None = None) -> list[Any]:
    items = data.get(name) or []
    if not isinstance(items, list) or count not in (None, len(items)):
        raise _mismatch(name, "a list" if count is None else f"a list of {count}", items)
    return items


def _mismatch(name: str, expected: str, value: object) -> ArtifactError:
    return ArtifactError(
        f"field {name!r}: expected {expected}, got {quote(json.dumps(value))}", code="field-type-mismatch"
    )


def _as_recorded(sentence: object) -> Json:
    return {"code": "recorded", "sentence": sentence}


def _find_worker_warnings(warnings: list[Any]) -> list[Json]:
    return [
        {"code": code, "sentence": sentence}
        for sentence in warnings
        for code, pattern in WORKER_WARNINGS.items()
        if re.search(pattern, str(sentence))
    ]


def _estimates(data: Mapping[str, Any], names: tuple[str, ...]) -> Json:
    found = {}
    for name in names:
        value, interval = (data.get(field) for field in _FIGURES[name])
        if value is not None:
            low, high = (value, value) if interval is None else _items(data, _FIGURES[name][1], 2)
            found[name] = {"value": value, "low": low, "high": high}
    return found


def _recorded(data: Mapping[str, Any]) -> Json:
    few = len(_items(data, "samples_s")) < intervals.MIN_SAMPLES[0.99]
    names = tuple(name for name in (*TIMES, *SHARES) if not (few and name == "p99"))
    return {
        "complete": True,
        "estimates": _estimates(data, names),
        **{name: data.get(name) for name in ("images", "images_per_s", "verdict")},
    }


def _recorded_against_reference(data: Mapping[str, Any]) -> Json:
    kept = {name: data.get(name) for name in ("verdict", "flips")}
    return {"complete": False, "estimates": _estimates(data, AGAINST_REFERENCE), **kept}


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


def _repack(answers: object) -> Json:
    """The packed predictions of version 4 as they are packed today."""
    old = codec.decode(PackedPredictions, answers)
    packed: Json = codec.encode(packing.pack_predictions(unpack_version_4(old), old.labels))
    return packed


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
