"""What is no engine for this library, version, GPU and driver is refused before the library sees a byte of it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import runtimes
from exporter import cli
from runtimes import Artifact, codec
from runtimes.artifacts.artifact import manifest_path
from runtimes.artifacts.manifest import Engine, Profile
from runtimes.backends.tensorrt import compatibility
from runtimes.backends.tensorrt.flavors import FLAVORS, compute_capabilities
from runtimes.errors import ArtifactError, CompatibilityError, IntegrityError, RexportError, UnsafeArtifactError
from runtimes.tensors.cuda import Device
from tests.refusals import error_codes, refuses
from tests.runtimes.backends.tensorrt import double
from tests.runtimes.backends.tensorrt.cudadouble import Recorder
from tests.runtimes.backends.tensorrt.engines import ENGINE, manifest_of, publish_script_engine

Spoil = Callable[[Artifact], None]


def change_record(**changes: Any) -> Spoil:
    """Changes the engine's record in the manifest."""

    def spoil(artifact: Artifact) -> None:
        manifest = manifest_of(artifact)
        assert manifest.engine is not None
        changed = replace(manifest, engine=replace(manifest.engine, **changes))
        manifest_path(artifact.path).write_text(codec.dumps(changed), encoding="utf-8")

    return spoil


def junk(artifact: Artifact) -> None:
    artifact.path.write_bytes(b"junk " * 1000)


def junk_like_an_engine(artifact: Artifact) -> None:
    artifact.path.write_bytes(b"ftrt" + b"junk " * 1000)


def truncate(artifact: Artifact) -> None:
    artifact.path.write_bytes(artifact.path.read_bytes()[:-1])


def flip_one_bit(artifact: Artifact) -> None:
    data = bytearray(artifact.path.read_bytes())
    data[-1] ^= 1
    artifact.path.write_bytes(data)


def without_manifest(artifact: Artifact) -> None:
    manifest_path(artifact.path).unlink()


def empty(artifact: Artifact) -> None:
    artifact.path.write_bytes(b"")


REFUSALS: dict[str, tuple[Spoil, type[RexportError], str, tuple[str, ...]]] = {
    "junk": (junk, IntegrityError, "file-digest-mismatch", ()),
    "junk like an engine": (junk_like_an_engine, IntegrityError, "file-digest-mismatch", ()),
    "empty": (empty, IntegrityError, "file-digest-mismatch", ()),
    "truncated": (truncate, IntegrityError, "file-digest-mismatch", ()),
    "one bit flipped": (flip_one_bit, IntegrityError, "file-digest-mismatch", ()),
    "without manifest": (without_manifest, UnsafeArtifactError, "manifest-required", ()),
    "other GPU": (
        change_record(gpu="NVIDIA H100"),
        CompatibilityError,
        "engine-of-other-gpu",
        ("NVIDIA H100", "NVIDIA Double with 9.0"),
    ),
    "other version": (
        change_record(version="11.3.0.1"),
        CompatibilityError,
        "engine-of-other-version",
        ("TensorRT 11.3.0.1", "11.4.0.106"),
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refused_before_the_library_reads_it(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = double.installed(monkeypatch)
    spoil, kind, code, values = REFUSALS[case]
    artifact = publish_script_engine(tmp_path)
    with runtimes.open(artifact.path, device="cuda") as runtime:
        assert runtime.description.backend == "tensorrt"
    sound = len(recorder.deserialised)
    assert sound == 1
    spoil(artifact)
    with refuses(kind, code, *values, "rexport tensorrt"):
        runtimes.open(artifact.path, backend="tensorrt", device="cuda")
    assert len(recorder.deserialised) == sound


@pytest.mark.parametrize("case", REFUSALS)
@pytest.mark.parametrize("command", ["predict", "verify"])
def test_the_commands_end_with_its_exit_code(
    case: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = double.installed(monkeypatch)
    spoil, kind, code, values = REFUSALS[case]
    artifact = publish_script_engine(tmp_path)
    spoil(artifact)
    images = [str(tmp_path / "image.png")] if command == "predict" else []
    monkeypatch.setattr(sys, "argv", ["rexport", command, str(artifact.path), *images, "--device", "cuda"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == kind.exit_code
    said = capsys.readouterr().err
    assert error_codes(said) == ["backends-all-refuse" if kind is CompatibilityError else code]
    assert all(value in said for value in (*values, "rexport tensorrt"))
    assert "Traceback" not in said
    assert recorder.deserialised == []


def test_junk_that_never_had_a_manifest(tmp_path: Path) -> None:
    (tmp_path / "x.engine").write_bytes(b"junk " * 1000)
    with refuses(ArtifactError, "file-not-model"):
        runtimes.open(tmp_path / "x.engine", device="cuda")


def test_the_hint_builds_the_same_engine_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    double.installed(monkeypatch)
    folder = tmp_path / "with space"
    folder.mkdir()
    search: dict[str, Any] = {"refittable": True, "sparse_weights": True, "aux_streams": 0, "tiling": "fast"}
    settings: dict[str, Any] = {"opt_level": 5, "workspace_bytes": 1 << 30, "version_compat": True, "avg_timing": 8}
    artifact = publish_script_engine(folder, **settings, **search, gpu="another")
    with refuses(CompatibilityError, "engine-of-other-gpu") as caught:
        runtimes.open(artifact.path, device="cuda", backend="tensorrt")
    assert caught.value.hint is not None
    command = caught.value.hint.partition(": ")[2]
    assert shlex.split(command) == [
        *("rexport", "tensorrt", str(folder / "scripted.onnx"), "--flavor", "tensorrt", "--profile", "1:4:8"),
        *("--opt-level", "5", "--workspace", str(1 << 30), "--version-compat", "--refit"),
        *("--sparse-weights", "--aux-streams", "0", "--tiling", "fast", "--avg-timing", "8"),
        *("-o", str(artifact.path), "--force"),
    ]


def test_a_damaged_engine_says_how_to_build_it_again(tmp_path: Path) -> None:
    artifact = publish_script_engine(
        tmp_path, hardware_compat="same-cc", stripped=True, profiles=(Profile(1, 1, 1), Profile(2, 4, 8))
    )
    truncate(artifact)
    with refuses(IntegrityError, "file-digest-mismatch") as caught:
        artifact.check_digest()
    words = shlex.split(str(caught.value.hint))
    assert "rexport tensorrt" in str(caught.value.hint)
    assert [word for word in words if ":" in word][1:] == ["1:1:1", "2:4:8"]
    assert words[words.index("--hardware-compat") + 1] == "same-cc"
    assert "--strip-weights" in words


HERE = Device(0, "NVIDIA Double", "9.0", "13.0", 1 << 30)
GEFORCE = Device(0, "NVIDIA GeForce RTX 4090", "8.9", "13.0", 1 << 30)


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return double.installed(monkeypatch)


def check_engine(tmp_path: Path, device: Device = HERE, by: str = "tensorrt", **changes: Any) -> Engine:
    artifact = publish_script_engine(tmp_path, **changes)
    return compatibility.check(artifact, FLAVORS[by], device)


def test_an_engine_of_this_machine_passes(tensorrt: Recorder, tmp_path: Path) -> None:
    assert check_engine(tmp_path) == ENGINE
    assert tensorrt.deserialised == []


@pytest.mark.parametrize(
    ("version", "compatible", "passes"),
    [
        ("11.4.0.106", False, True),
        ("11.4.0.999", False, True),  # another build of the same release
        ("11.4.1.106", False, False),
        ("10.4.0.106", False, False),
        ("11.3.9.1", True, True),
        ("11.4.0.1", True, True),
        ("11.5.0.1", True, False),  # a later one's
        ("10.16.1.11", True, True),  # TensorRT 11 runs what 10 built like that
        ("9.3.0.1", True, False),
        ("latest", False, False),
    ],
)
def test_versions(version: str, compatible: bool, passes: bool, tensorrt: Recorder, tmp_path: Path) -> None:
    assert not tensorrt.deserialised
    if passes:
        check_engine(tmp_path, version=version, version_compat=compatible)
        return
    code, values = ("engine-of-other-version", (version, "11.4.0.106"))
    if version == "latest":
        code, values = ("engine-version-unknown", ("'latest'", "TensorRT"))
    with refuses(CompatibilityError, code, *values):
        check_engine(tmp_path, version=version, version_compat=compatible)


@pytest.mark.parametrize(
    ("changes", "device", "passes"),
    [
        ({"gpu": "NVIDIA H100"}, HERE, False),
        ({"compute_capability": "8.0"}, HERE, False),
        ({"gpu": None, "compute_capability": None}, HERE, False),
        ({"gpu": "NVIDIA H100", "hardware_compat": "same-cc"}, HERE, True),
        ({"compute_capability": "8.6", "hardware_compat": "same-cc"}, HERE, False),
        ({"gpu": "NVIDIA A10", "compute_capability": "8.6", "hardware_compat": "ampere+"}, HERE, True),
        ({"hardware_compat": "ampere+"}, replace(HERE, name="Tesla T4", compute_capability="7.5"), False),
        ({"hardware_compat": "ampere+"}, replace(HERE, compute_capability="12.0"), True),
    ],
)
def test_gpus(changes: dict[str, Any], device: Device, passes: bool, tensorrt: Recorder, tmp_path: Path) -> None:
    assert not tensorrt.deserialised
    if passes:
        check_engine(tmp_path, device, **changes)
        return
    with refuses(CompatibilityError, "engine-of-other-gpu" if changes.get("gpu", "built") else "engine-without-gpu"):
        check_engine(tmp_path, device, **changes)


@pytest.mark.parametrize(("driver", "passes"), [("12.9", True), ("13.0", True), ("13.1", False), (None, True)])
def test_drivers(driver: str | None, passes: bool, tensorrt: Recorder, tmp_path: Path) -> None:
    assert not tensorrt.deserialised
    if passes:
        check_engine(tmp_path, driver=driver)
        return
    with refuses(CompatibilityError, "engine-of-newer-driver", "13.1", "13.0", "update"):
        check_engine(tmp_path, driver=driver)


def test_anothers_engine_names_its_backend(tensorrt: Recorder, tmp_path: Path) -> None:
    assert not tensorrt.deserialised
    values = ("by TensorRT,", "TensorRT-RTX cannot run it", "use backend tensorrt,", "rexport tensorrt", "--flavor rtx")
    with refuses(CompatibilityError, "engine-of-other-library", *values):
        check_engine(tmp_path, by="rtx")


def rtx_engine(**changes: Any) -> dict[str, Any]:
    built = {"flavor": "rtx", "version": FLAVORS["rtx"].version(), "gpu": None, "compute_capability": None}
    return {**built, "driver": None, **changes}


@pytest.mark.parametrize(
    ("targets", "capability", "passes"),
    [
        ((), "8.9", True),
        ((), "8.0", True),
        ((), "7.5", False),  # Turing has to be asked for
        (("7.5",), "7.5", True),
        (("7.5", "8.9"), "8.9", True),
        (("8.6",), "8.9", False),
    ],
)
def test_targets_of_tensorrt_rtx(targets: tuple[str, ...], capability: str, passes: bool, tmp_path: Path) -> None:
    device = replace(GEFORCE, compute_capability=capability)
    changes = rtx_engine(targets=targets)
    if passes:
        check_engine(tmp_path, device, "rtx", **changes)
        return
    with refuses(CompatibilityError, "engine-of-other-capability") as caught:
        check_engine(tmp_path, device, "rtx", **changes)
    assert f"--compute-capability {capability}" in str(caught.value.hint)


def test_a_gpu_that_tensorrt_rtx_has_not(tmp_path: Path) -> None:
    """The library's own list is asked: it builds nothing for Hopper."""
    assert "9.0" not in compute_capabilities(FLAVORS["rtx"])
    with refuses(CompatibilityError, "engine-gpu-unsupported", "7.5", "NVIDIA Double with 9.0"):
        check_engine(tmp_path, HERE, "rtx", **rtx_engine())


def test_a_manifest_that_does_not_say_how_it_was_built(tensorrt: Recorder, tmp_path: Path) -> None:
    artifact = publish_script_engine(tmp_path)
    silent = replace(artifact, manifest=replace(manifest_of(artifact), engine=None))
    with refuses(IntegrityError, "engine-record-absent", "rexport tensorrt"):
        compatibility.check(silent, FLAVORS["tensorrt"], HERE)
    with refuses(UnsafeArtifactError, "engine-without-manifest", "rexport tensorrt"):
        compatibility.check(replace(artifact, manifest=None), FLAVORS["tensorrt"], HERE)
    assert tensorrt.deserialised == []
