"""What may be asked of a library, what each lacks, and how people type it."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from runtimes.artifacts.manifest import Profile
from runtimes.backends.tensorrt.build_settings import Settings, parse_profile, parse_size, parse_target, settings_of
from runtimes.backends.tensorrt.flavors import FLAVORS
from runtimes.errors import UsageError
from tests.refusals import refuses
from tests.runtimes.backends.tensorrt.engines import ENGINE

pytest.importorskip("tensorrt_rtx")


@pytest.mark.parametrize(
    ("fields", "code", "values"),
    [
        ({"opt_level": 6}, "opt-level-invalid", ("0 to 5", "not 6")),
        ({"opt_level": -1}, "opt-level-invalid", ("0 to 5", "not -1")),
        ({"workspace_bytes": 0}, "workspace-too-small", ("1 byte", "not 0")),
        ({"hardware_compat": "ampere"}, "hardware-compat-unknown", ("'ampere'", "none, ampere+, same-cc")),
        ({"profiles": (Profile(1, 2, 3), Profile(1, 2, 3))}, "setting-given-twice", ("profile",)),
        ({"targets": ("8.6", "8.6")}, "setting-given-twice", ("compute capability",)),
        ({"tiling": "deep"}, "tiling-unknown", ("'deep'", "moderate, full")),
        ({"aux_streams": -1}, "count-too-small", ("streams", "least 0", "not -1")),
        ({"avg_timing": 0}, "count-too-small", ("averaged runs", "least 1", "not 0")),
        ({"refit": True, "strip_weights": True}, "refit-excludes-strip", ()),
    ],
)
def test_what_no_library_takes_is_refused_at_once(fields: dict[str, Any], code: str, values: tuple[str, ...]) -> None:
    with refuses(UsageError, code, *values):
        Settings(**fields)


@pytest.mark.parametrize(
    ("flavor", "fields", "code", "values"),
    [
        ("rtx", {"hardware_compat": "ampere+"}, "setting-unsupported", ("TensorRT-RTX", "hardware compatibility")),
        ("rtx", {"version_compat": True}, "setting-unsupported", ("TensorRT-RTX", "later versions")),
        ("rtx", {"timing_cache": Path("x")}, "setting-unsupported", ("TensorRT-RTX", "timing cache")),
        ("rtx", {"avg_timing": 2}, "setting-unsupported", ("TensorRT-RTX", "averages")),
        ("rtx", {"targets": ("9.0",)}, "compute-capability-unsupported", ("TensorRT-RTX", "9.0", "7.5, 8.0")),
        ("rtx", {"targets": ("8.6", "8.7")}, "compute-capability-unsupported", ("TensorRT-RTX", "8.7")),
        ("tensorrt", {"targets": ("8.6",)}, "setting-unsupported", ("TensorRT", "another GPU", "flavor rtx")),
    ],
)
def test_what_a_library_lacks_is_refused(
    flavor: str, fields: dict[str, Any], code: str, values: tuple[str, ...]
) -> None:
    with refuses(UsageError, code, *values):
        Settings(**fields).check(FLAVORS[flavor])


@pytest.mark.parametrize(
    ("flavor", "fields"),
    [
        ("rtx", {}),
        ("rtx", {"targets": ("7.5", "12.1"), "tf32": True, "opt_level": 0, "strip_weights": True}),
        ("tensorrt", {"hardware_compat": "same-cc", "version_compat": True, "timing_cache": Path("x")}),
    ],
)
def test_what_a_library_has_passes(flavor: str, fields: dict[str, Any]) -> None:
    settings = Settings(**fields)
    assert settings.check(FLAVORS[flavor]) is settings


def test_settings_come_back_from_the_record_of_an_engine() -> None:
    changed: dict[str, Any] = {
        "profiles": (Profile(1, 2, 3),),
        "tf32": True,
        "opt_level": 2,
        "workspace_bytes": 1 << 30,
        "hardware_compat": "ampere+",
        "version_compat": True,
        "targets": ("8.6",),
        "aux_streams": 0,
        "tiling": "full",
        "avg_timing": 4,
        "sparse_weights": True,
    }
    for extra in ("refit", "strip_weights"):
        settings = Settings(**changed | {extra: True})
        names = {"strip_weights": "stripped", "refit": "refittable"}
        record = replace(ENGINE, **{names.get(name, name): value for name, value in vars(settings).items() if value})
        assert settings_of(replace(record, aux_streams=0)) == settings
    assert {field.name for field in fields(Settings)} == {*changed, "refit", "strip_weights", "timing_cache"}


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("4GiB", 4 << 30),
        ("4 gib", 4 << 30),
        ("512M", 512_000_000),
        ("512MB", 512_000_000),
        ("1.5KiB", 1536),
        ("64k", 64_000),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1", "0", "1TB", "4 Gi B", "٣", "1e9", "0.1", "nan", "9" * 20, "9" * 400])
def test_what_is_no_size(text: str) -> None:
    with refuses(UsageError, "size-invalid"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "profile"), [("1:8:64", (1, 8, 64)), (" 1 :8: 64 ", (1, 8, 64)), ("8", (8, 8, 8)), ("7:7:7", (7, 7, 7))]
)
def test_profiles(text: str, profile: tuple[int, int, int]) -> None:
    assert parse_profile(text) == Profile(*profile)


@pytest.mark.parametrize("text", ["", "1:8", "1:8:64:5", "a:b:c", "1,8,64", "-1:2:3", "1:8:9999999999"])
def test_what_is_no_profile(text: str) -> None:
    with refuses(UsageError, "profile-invalid"):
        parse_profile(text)


@pytest.mark.parametrize("text", ["8:1:64", "0:1:2", "1:8:0", "0"])
def test_a_profile_out_of_order(text: str) -> None:
    with refuses(UsageError, "profile-out-of-order"):
        parse_profile(text)


@pytest.mark.parametrize(
    ("text", "target"), [("8.6", "8.6"), ("86", "8.6"), ("sm_86", "8.6"), ("SM120", "12.0"), ("12.1", "12.1")]
)
def test_targets(text: str, target: str) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize("text", ["", "8", "ampere", "8.6.1", "1234", "sm-86"])
def test_what_is_no_target(text: str) -> None:
    with refuses(UsageError, "compute-capability-invalid"):
        parse_target(text)
