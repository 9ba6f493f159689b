"""What ``runtimes.open`` takes when it is not told: what an artifact was tuned for, else the first backend that can."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import runtimes
from runtimes import Artifact, Backend, codec, protocol
from runtimes.artifacts.artifact import manifest_path
from runtimes.artifacts.manifest import Tuning
from runtimes.backends import fake, registry
from runtimes.devices import parse_device
from runtimes.errors import (
    ArtifactError,
    BackendUnavailableError,
    CompatibilityError,
    InputError,
    IntegrityError,
    Reason,
    ResourceError,
    RexportError,
    UsageError,
)
from runtimes.processors import usable_processors
from runtimes.protocol import Options, Session
from runtimes.selection import select_candidates
from tests.conftest import FakeFactory
from tests.exporter import small
from tests.exporter.command_line import python
from tests.refusals import refuses
from tests.runtimes import typed
from tests.runtimes.backends.tensorrt.cudadouble import Recorder, gpu_uuid
from tests.runtimes.backends.tensorrt.driverdouble import install
from tests.samples import copied

BACKENDS = [row.name for row in runtimes.available_backends() if "onnx" in row.formats and row.missing() is None]


def tune_artifact(artifact: Artifact, runtime: str = "openvino", device: str = "cpu", threads: int = 1) -> Artifact:
    """The artifact with a manifest that says what it was tuned for."""
    assert artifact.manifest is not None
    tuning = Tuning(runtime, device, threads, 1, "latency", 0.001, 1000.0, "a machine")
    return replace(artifact, manifest=replace(artifact.manifest, tuning=tuning))


def describe(artifact: Artifact, *arguments: Any, **options: Any) -> tuple[str, str, int]:
    with runtimes.open_artifact(artifact, *arguments, **options) as runtime:
        found = runtime.description
        return found.backend, found.device, found.threads


def test_what_an_artifact_was_tuned_for_is_the_default(onnx_artifact: Artifact, tmp_path: Path) -> None:
    usable = usable_processors()
    assert describe(onnx_artifact) == ("onnxruntime", "cpu", usable)
    assert describe(tune_artifact(onnx_artifact)) == ("openvino", "cpu", 1)
    assert describe(tune_artifact(onnx_artifact), device="cpu") == ("openvino", "cpu", 1)
    assert describe(tune_artifact(onnx_artifact, threads=usable), threads=1) == ("openvino", "cpu", 1)
    artifact = tune_artifact(copied(onnx_artifact, tmp_path))
    manifest_path(artifact.path).write_text(codec.dumps(artifact.manifest), encoding="utf-8")
    with runtimes.open(artifact.path) as runtime:
        assert runtime.description.backend == "openvino"
    assert {layer.operator for layer in runtimes.profile(artifact.path) if layer.weighted} >= {"Convolution"}


def test_a_backend_or_device_that_is_named_goes_before(onnx_artifact: Artifact) -> None:
    usable = usable_processors()
    assert describe(tune_artifact(onnx_artifact), "onnxruntime") == ("onnxruntime", "cpu", usable)
    assert describe(tune_artifact(onnx_artifact), "openvino") == (
        "openvino",
        "cpu",
        usable,
    )  # another's threads are not taken
    assert describe(tune_artifact(onnx_artifact, "onnxruntime", "cuda"), device="cpu") == ("onnxruntime", "cpu", usable)


@pytest.mark.parametrize(("threads", "expected"), [(10_000, usable_processors()), (0, 1), (-3, 1)])
def test_tuned_threads_stay_within_what_is_there(onnx_artifact: Artifact, threads: int, expected: int) -> None:
    assert describe(tune_artifact(onnx_artifact, "onnxruntime", threads=threads)) == ("onnxruntime", "cpu", expected)


Install = Callable[..., None]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Makes it look as if the named backends' libraries alone were there."""

    rows = registry.all_backends()

    def only(*names: str) -> None:
        found = tuple(row if row.name in names else missing(row) for row in rows)
        monkeypatch.setattr(registry, "all_backends", lambda: found)

    def missing(row: Backend) -> Backend:
        return replace(row, missing=lambda: Reason("library-missing", f"no {row.name} here"))

    return only


def test_a_missing_tuned_backend_is_named_with_the_way_out(onnx_artifact: Artifact, installed: Install) -> None:
    installed("onnxruntime")
    values = (onnx_artifact.path, "for backend openvino,", "no openvino here", "backend='onnxruntime'")
    with refuses(BackendUnavailableError, "tuned-backend-missing", *values):
        runtimes.open_artifact(tune_artifact(onnx_artifact))
    assert describe(tune_artifact(onnx_artifact), "onnxruntime")[0] == "onnxruntime"
    installed()
    with refuses(BackendUnavailableError, "tuned-backend-missing", "no openvino here", "another backend"):
        runtimes.open_artifact(tune_artifact(onnx_artifact))


@pytest.mark.parametrize(("runtime", "device"), [("tensorflow", "cpu"), ("openvino", "npu"), ("pytorch", "cpu")])
def test_tuned_for_what_nobody_has(onnx_artifact: Artifact, runtime: str, device: str) -> None:
    values = (f"'{runtime}'", f"'{device}'", "--upgrade rexport;", "backend='onnxruntime'")
    with refuses(CompatibilityError, "tuning-unknown-here", *values):
        runtimes.open_artifact(tune_artifact(onnx_artifact, runtime, device))


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network in bfloat16."""
    folder = tmp_path_factory.mktemp("half")
    source = small.export(small.BASIC, folder, opset=typed.OPSET).path
    typed.cast(source, folder / "bf16.onnx", TensorProto.BFLOAT16)
    return folder / "bf16.onnx"


def test_the_first_backend_that_can_run_it_is_the_default(half: Path) -> None:
    with runtimes.open(half) as runtime:
        assert runtime.description.backend == "openvino"
        assert runtime.infer({"input": np.ones((2, 3, 16, 16), np.float32)})["logits"].shape == (2, 10)


def test_a_refusal_names_what_else_is_not_there(half: Path, installed: Install) -> None:
    installed("onnxruntime")
    values = (half, "onnxruntime: ", "Conv in bfloat16", "'conv1/Conv'; openvino: no", "another precision")
    with refuses(CompatibilityError, "backends-all-refuse", *values):
        runtimes.open(half)
    installed("openvino")
    with runtimes.open(half) as runtime:
        assert runtime.description.backend == "openvino"


def test_when_all_refuse_each_reason_is_told(half: Path) -> None:
    model = onnx.load(half)
    model.opset_import[0].version = 999
    path = half.with_name("future.onnx")
    path.write_bytes(model.SerializeToString())
    with refuses(
        CompatibilityError, "backends-all-refuse", path, "onnxruntime: ", "; openvino: ", "opset 999"
    ) as caught:
        runtimes.open(path)
    assert "older opset" in str(caught.value.hint)


def refusing(error: Exception) -> Callable[[Artifact, Options], Session]:
    def open(*_: object) -> Session:
        raise error

    return open


@pytest.mark.parametrize(
    "error", [ArtifactError("broken"), BackendUnavailableError("no such device"), UsageError("wrong")]
)
def test_only_what_is_incompatible_goes_on_to_the_next(
    error: Exception, fake_artifact: FakeFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = replace(fake.BACKEND, name="first", open=refusing(error))
    monkeypatch.setattr(registry, "all_backends", lambda: (first, fake.BACKEND))
    with pytest.raises(type(error), match=str(error)):
        runtimes.open(fake_artifact().path)
    monkeypatch.setattr(
        registry,
        "all_backends",
        lambda: (replace(first, open=refusing(CompatibilityError("not this"))), fake.BACKEND),
    )
    with runtimes.open(fake_artifact().path) as runtime:
        assert runtime.description.backend == "fake"


def test_a_lone_backends_refusal_is_passed_on_as_it_is(
    fake_artifact: FakeFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = CompatibilityError("not this", hint="do that")
    monkeypatch.setattr(registry, "all_backends", lambda: (replace(fake.BACKEND, open=refusing(refusal)),))
    with pytest.raises(CompatibilityError) as caught:
        runtimes.open(fake_artifact().path)
    assert caught.value is refusal


def test_a_damaged_file_is_the_better_explanation_of_a_refusal(onnx_artifact: Artifact, tmp_path: Path) -> None:
    artifact = copied(onnx_artifact, tmp_path)
    model = onnx.load(artifact.path)
    model.opset_import[0].version = 999
    artifact.path.write_bytes(model.SerializeToString())
    with refuses(IntegrityError, "file-digest-mismatch"):
        runtimes.open(artifact.path)


def test_a_device_that_no_backend_has(onnx_artifact: Artifact, fake_artifact: FakeFactory) -> None:
    with refuses(UsageError, "device-unknown", "'tpu'", "cpu, cuda or cuda:N"):
        runtimes.open(onnx_artifact.path, device="tpu")
    with refuses(UsageError, "device-unsupported", "fake", "'cuda'", "of cpu)"):
        runtimes.open(fake_artifact().path, device="cuda")


def fallbacks(name: str, chosen: str, steps: tuple[str, ...]) -> list[tuple[str, str]]:
    """What is announced where ``chosen`` runs the network of that name and those backends were skipped."""
    return [("backend-fallback", f"{name}: fallback to backend {chosen} on cpu; skipped {step}") for step in steps]


def test_without_the_device_the_processor_is_the_last_resort(
    onnx_artifact: Artifact, installed: Install, said: list[tuple[str, str]]
) -> None:
    installed("openvino")
    with runtimes.open_artifact(onnx_artifact, device="auto") as runtime:
        found = runtime.description
        assert (found.backend, found.device) == ("openvino", "cpu")
        absent = [row.name for row in registry.all_backends() if "cuda" in row.devices and "onnx" in row.formats]
        assert found.skipped_backends == tuple(f"{name}: no {name} here" for name in absent)
        assert found.passed_over == found.skipped_backends  # the name of version 0.1
    assert "onnxruntime" in absent
    assert said == fallbacks("resnet20 in fp32", "openvino", found.skipped_backends)


def test_a_named_gpu_is_never_the_processor_instead(
    fake_artifact: FakeFactory, monkeypatch: pytest.MonkeyPatch, said: list[tuple[str, str]]
) -> None:
    monkeypatch.setattr(registry, "all_backends", lambda: fakes(gpu="no library", both=on_cpu_alone, cpu=working))
    with refuses(BackendUnavailableError, "backends-all-missing", "gpu: no library", "both on cuda: no GPU"):
        runtimes.open(fake_artifact().path, device="cuda")
    assert said == []
    assert describe(fake_artifact(), "both", device="cpu")[1] == "cpu"


def test_one_number_reaches_the_backend_and_the_description(
    fake_artifact: FakeFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, Recorder(devices=2))
    monkeypatch.setattr(registry, "all_backends", lambda: fakes(both=working))
    for device, expected in (("cuda", "cuda"), ("cuda:0", "cuda"), ("CUDA:1", "cuda:1"), ("auto", "cuda")):
        with runtimes.open(fake_artifact().path, device=device) as runtime:
            about = runtime.description
        index = parse_device(expected).index
        assert (about.device, about.gpu, about.gpu_uuid) == (expected, "NVIDIA Double", str(gpu_uuid(index)))
    with refuses(BackendUnavailableError, "gpu-number-missing", "cuda:2", "cuda:0 NVIDIA Double, cuda:1 NVIDIA Double"):
        runtimes.open(fake_artifact().path, device="cuda:2")
    with runtimes.open(fake_artifact().path) as runtime:
        assert (runtime.description.device, runtime.description.gpu) == ("cpu", None)


def test_the_limit_of_gpu_memory_reaches_the_backend(
    fake_artifact: FakeFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int | None] = []

    def opening(artifact: Artifact, options: Options) -> Session:
        seen.append(options.gpu_mem_limit)
        return working(artifact, options)

    monkeypatch.setattr(registry, "all_backends", lambda: fakes(both=opening))
    for limit in (None, 1 << 30):
        runtimes.open(fake_artifact().path, gpu_mem_limit=limit).close()
    assert seen == [None, 1 << 30]
    with refuses(UsageError, "gpu-memory-limit-too-low", 0):
        runtimes.open(fake_artifact().path, gpu_mem_limit=0)


def test_a_tuned_artifact_runs_on_the_gpu_of_that_number(
    onnx_artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, Recorder(devices=2))
    tuned = tune_artifact(onnx_artifact, "onnxruntime", "cuda")
    for device, index in ((None, 0), ("cuda", 0), ("cuda:1", 1)):
        ((row, options),) = select_candidates(tuned, None, device, None)
        assert (row.name, options.device, options.device_index) == ("onnxruntime", "cuda", index)
    assert len(select_candidates(tuned, None, "auto", None)) > 1


def test_when_nothing_is_there_the_processor_neither(onnx_artifact: Artifact, installed: Install) -> None:
    installed()
    with refuses(BackendUnavailableError, "backends-all-missing", "onnx files") as caught:
        runtimes.open(onnx_artifact.path, device="auto")
    for name in ("onnxruntime", "openvino"):
        assert str(caught.value).count(f" {name}: no {name} here") == 1


def fakes(**opened: Callable[[Artifact, Options], Session] | str) -> tuple[Backend, ...]:
    """Backends of scripts by name, in this order: what opens them, or why they are missing. ``gpu...`` is on ``cuda``
    alone, ``cpu...`` on ``cpu``, any other on both."""
    rows = []
    for name, how in opened.items():
        devices = ("cpu",) if name.startswith("cpu") else ("cuda",) if name.startswith("gpu") else ("cpu", "cuda")
        row = replace(fake.BACKEND, name=name, devices=devices)
        rows.append(
            replace(row, missing=partial(Reason, "library-missing", how))
            if isinstance(how, str)
            else replace(row, open=how)
        )
    return tuple(rows)


working = fake.BACKEND.open
NO_DEVICE = BackendUnavailableError("no GPU", code="gpu-missing", hint="a driver")
NOT_THIS = CompatibilityError("not this", code="graph-unsuitable", hint="do that")


def test_each_step_down_is_told_with_its_reason(
    fake_artifact: FakeFactory, monkeypatch: pytest.MonkeyPatch, said: list[tuple[str, str]]
) -> None:
    found = fakes(gpu1="no library", gpu2=refusing(NOT_THIS), both=refusing(NO_DEVICE), cpu1=working)
    monkeypatch.setattr(registry, "all_backends", lambda: found)
    artifact = fake_artifact()
    path, name = artifact.path, name_of(artifact)
    with pytest.raises(BackendUnavailableError) as caught:
        runtimes.open(path, device="auto")
    assert caught.value is NO_DEVICE  # on the processor, a library that is there and broken is no step down
    both = replace(found[2], open=on_cpu_alone)
    monkeypatch.setattr(registry, "all_backends", lambda: (*found[:2], both, found[3]))
    with runtimes.open(path, device="auto") as runtime:
        about = runtime.description
    assert (about.backend, about.device) == ("fake", "cpu")
    assert [tuple(step.split(": ")) for step in about.skipped_backends] == [
        ("gpu1", "no library"),
        ("gpu2 on cuda", "not this"),
        ("both on cuda", f"no GPU ({NO_DEVICE.hint})"),
    ]
    assert said == fallbacks(name, "fake", about.skipped_backends)


def name_of(artifact: Artifact) -> str:
    """How warnings name the network."""
    assert artifact.manifest is not None
    return f"{artifact.manifest.name} in {artifact.manifest.precision}"


def on_cpu_alone(artifact: Artifact, options: Options) -> Session:
    if options.device != "cpu":
        raise NO_DEVICE
    return working(artifact, options)


@pytest.mark.parametrize("error", [ArtifactError("broken"), ResourceError("full"), UsageError("wrong")])
def test_what_is_no_lack_of_a_device_ends_the_search_there_too(
    error: Exception, fake_artifact: FakeFactory, monkeypatch: pytest.MonkeyPatch, said: list[tuple[str, str]]
) -> None:
    monkeypatch.setattr(registry, "all_backends", lambda: fakes(gpu=refusing(error), cpu=working))
    with pytest.raises(type(error), match=str(error)):
        runtimes.open(fake_artifact().path, device="auto")
    assert said == []


@pytest.mark.parametrize("error", [NO_DEVICE, NOT_THIS])
def test_a_backend_that_is_named_never_steps_down(
    error: RexportError, fake_artifact: FakeFactory, monkeypatch: pytest.MonkeyPatch, said: list[tuple[str, str]]
) -> None:
    monkeypatch.setattr(registry, "all_backends", lambda: fakes(both=refusing(error), cpu=working))
    with pytest.raises(type(error)) as caught:
        runtimes.open(fake_artifact().path, "both", device="cuda")
    assert caught.value is error
    assert said == []


def test_when_all_refuse_on_all_devices_each_reason_is_told(
    fake_artifact: FakeFactory, monkeypatch: pytest.MonkeyPatch, said: list[tuple[str, str]]
) -> None:
    found = fakes(gpu="no library", both=refusing(NOT_THIS), cpu="absent")
    monkeypatch.setattr(registry, "all_backends", lambda: found)
    with refuses(CompatibilityError, "backends-all-refuse") as caught:
        runtimes.open(fake_artifact().path, device="auto")
    steps = [step.split(": ")[-2:] for step in caught.value.what.split("; ")]
    assert steps == [
        ["gpu", "no library"],
        ["both on cuda", "not this"],
        ["both on cpu", "not this"],
        ["cpu", "absent"],
    ]
    assert caught.value.hint == NOT_THIS.hint
    assert said == []  # the error says it all


@pytest.mark.parametrize("backend", [None, "auto", "gpu"])
def test_what_runs_on_a_gpu_alone_needs_no_device_named(
    backend: str | None, fake_artifact: FakeFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "all_backends", lambda: fakes(gpu=working))
    assert describe(fake_artifact(), backend) == ("fake", "cuda", usable_processors())
    code = "backend-lacks-device" if backend == "gpu" else "device-unsupported"
    with refuses(UsageError, code, "'cpu'", "of cuda)"):
        runtimes.open(fake_artifact().path, backend, device="cpu")


def test_beside_others_it_is_chosen_by_its_name_alone(
    fake_artifact: FakeFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "all_backends", lambda: fakes(gpu=working, both=working))
    for backend, device in ((None, "cpu"), ("auto", "cpu"), ("both", "cpu"), ("gpu", "cuda")):
        assert describe(fake_artifact(), backend)[1] == device


def test_on_the_processor_a_missing_library_is_no_news(
    fake_artifact: FakeFactory, monkeypatch: pytest.MonkeyPatch, said: list[tuple[str, str]]
) -> None:
    found = fakes(cpu1="absent", cpu2=refusing(NOT_THIS), cpu3=working)
    monkeypatch.setattr(registry, "all_backends", lambda: found)
    artifact = fake_artifact()
    with runtimes.open(artifact.path) as runtime:
        assert runtime.description.skipped_backends == ("cpu1: absent", "cpu2: not this")
    assert said == fallbacks(name_of(artifact), "fake", ("cpu2: not this",))


def test_auto_is_the_most_preferred_whatever_it_was_tuned_for(onnx_artifact: Artifact) -> None:
    assert describe(tune_artifact(onnx_artifact)) == ("openvino", "cpu", 1)
    assert describe(tune_artifact(onnx_artifact), "auto") == ("onnxruntime", "cpu", usable_processors())
    with runtimes.open(onnx_artifact.path, "auto") as runtime:
        assert runtime.description.skipped_backends == ()


def test_graphs_are_recorded_for_runs_and_not_for_profiles(
    fake_artifact: FakeFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def open(artifact: Artifact, options: Options) -> Session:
        seen.append(options.cuda_graphs)
        return working(artifact, options)

    monkeypatch.setattr(registry, "all_backends", lambda: fakes(both=open))
    path = fake_artifact().path
    runtimes.open(path).close()
    for asked in (True, False):
        runtimes.open(path, cuda_graphs=asked).close()
    assert seen == [True, True, False]
    seen.clear()
    monkeypatch.setattr(registry, "all_backends", lambda: (replace(fake.BACKEND, open=open),))
    runtimes.profile(path)
    assert seen == [False]


def test_a_warning_is_seen_where_nobody_set_up_logging(
    onnx_artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    code = "import sys, runtimes; runtimes.open(sys.argv[1], device='auto').close()"
    done = python("-W", "error", "-c", code, str(onnx_artifact.path))
    assert (done.code, done.stdout) == (0, "")
    steps = ("tensorrt: ", "onnxruntime-rtx: ")
    (_, first), (_, last) = fallbacks("resnet20 in fp32", "onnxruntime", steps)
    lines = done.stderr.splitlines()  # one for each step
    assert lines[0].startswith(first)
    assert lines[-1].startswith(last)


MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network that takes uint8 pixels, channels last; beside it, as ``float.onnx``, the one that it holds."""
    folder = tmp_path_factory.mktemp("pixels")
    source = small.export(small.BASIC, folder).path
    (folder / "float.onnx").write_bytes(source.read_bytes())
    typed.take_pixels(source, folder / "pixels.onnx", MEAN, STD)
    return folder / "pixels.onnx"


@pytest.mark.parametrize("backend", BACKENDS)
def test_pixels_go_in_as_they_are(pixels: Path, backend: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    prepared = ((images / 255 - MEAN) / STD).astype(np.float32).transpose(0, 3, 1, 2)
    with runtimes.open(pixels.with_name("float.onnx"), backend) as runtime:
        expected = runtime.infer({"input": prepared})["logits"]
    with runtimes.open(pixels, backend) as runtime:
        assert (runtime.inputs[0].dtype, runtime.inputs[0].shape[1:]) == ("uint8", (16, 16, 3))
        assert runtime.description.precision == "float32"
        logits = runtime.infer({"input": images})["logits"]
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
        np.testing.assert_array_equal(runtime.infer({"input": images[:, ::-1]})["logits"].shape, (3, 10))
        np.testing.assert_array_equal(runtime.infer({"input": images.tolist()})["logits"], logits)
        runtime.bind({"input": images})()
        assert runtime.infer({"input": images[:0]})["logits"].shape == (0, 10)
        with refuses(InputError, "input-dtype-mismatch", "float32", "raw pixels", "255"):
            runtime.infer({"input": images.astype(np.float32)})
        with refuses(InputError, "input-shape-mismatch", "channels first", f"transpose{(0, 2, 3, 1)}"):
            runtime.infer({"input": images.transpose(0, 3, 1, 2)})
    convolutions = [layer for layer in runtimes.profile(pixels, backend=backend) if layer.weighted]
    assert {layer.precision for layer in convolutions} == {"float32"}


@pytest.mark.parametrize("element", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_normalising_in_float32_leaves_a_narrow_graph_narrow(element: int, tmp_path: Path) -> None:
    """Precision is that of the convolutions: mean and standard deviation are multiplied in float32 in any graph."""
    source = small.export(small.BASIC, tmp_path, opset=typed.OPSET).path
    typed.cast(source, tmp_path / "narrow.onnx", element)
    narrow, pixels = tmp_path / "narrow.onnx", tmp_path / "pixels.onnx"
    typed.take_pixels(narrow, pixels, MEAN, STD)
    with runtimes.open(narrow, "openvino") as one, runtimes.open(pixels, "openvino") as other:
        assert one.description.precision == other.description.precision
    layers = runtimes.profile(pixels, backend="openvino")
    assert protocol.summarise_precisions(layers) == one.description.precision


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("place", ["input", "output"])
def test_a_type_that_numpy_lacks_is_refused(tmp_path: Path, backend: str, place: str) -> None:
    kinds = {"input": (TensorProto.BFLOAT16, TensorProto.FLOAT), "output": (TensorProto.FLOAT, TensorProto.BFLOAT16)}
    taken, given = kinds[place]
    graph = helper.make_graph(
        [helper.make_node("Cast", ["x"], ["y"], to=given)],
        "net",
        [helper.make_tensor_value_info("x", taken, ("n", 4))],
        [helper.make_tensor_value_info("y", given, ("n", 4))],
    )
    path = tmp_path / "net.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    with refuses(CompatibilityError, "tensor-type-unsupported", "x" if place == "input" else "y", "bf"):
        runtimes.open(path, backend)


@pytest.mark.parametrize(("backend", "fixture"), [
    ("onnxruntime", "onnx_artifact"), ("openvino", "onnx_artifact"), ("pytorch", "pt2_artifact")
])  # fmt: skip
@pytest.mark.parametrize("there", ["nothing", "a folder"])
def test_a_file_that_is_gone_meanwhile_is_not_called_damaged(
    request: pytest.FixtureRequest, tmp_path: Path, backend: str, fixture: str, there: str
) -> None:
    """Libraries say little about calls of the system that fail; exit code 6 and not 3."""
    source: Artifact = request.getfixturevalue(fixture)
    for file in source.path.parent.glob(f"{source.path.name}*"):
        shutil.copy(file, tmp_path)
    artifact = Artifact.read(tmp_path / source.path.name)
    artifact.path.unlink()
    if there == "a folder":
        artifact.path.mkdir()
    code = {"nothing": "file-access-failed", "a folder": "file-not-regular"}[there]
    with refuses(ResourceError, code, artifact.path):
        registry.find_backend(backend).open(artifact, Options("cpu", 1))
