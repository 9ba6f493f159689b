"""What ``runtimes.open`` takes when it is not told: what an artifact was tuned for, else the first backend that can."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
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
from runtimes.errors import (
    ArtifactError,
    BackendUnavailableError,
    CompatibilityError,
    InputError,
    IntegrityError,
    ResourceError,
    RexportError,
    UsageError,
)
from runtimes.processors import usable_processors
from runtimes.protocol import Options, Session
from tests.conftest import FakeFactory
from tests.exporter import small
from tests.exporter.command_line import python
from tests.runtimes import typed
from tests.samples import copied

BACKENDS = [row.name for row in runtimes.available_backends() if "onnx" in row.formats and row.missing() is None]


def tuned(artifact: Artifact, runtime: str = "openvino", device: str = "cpu", threads: int = 1) -> Artifact:
    """The artifact with a manifest that says what it was tuned for."""
    assert artifact.manifest is not None
    tuning = Tuning(runtime, device, threads, 1, "latency", 0.001, 1000.0, "a machine")
    return replace(artifact, manifest=replace(artifact.manifest, tuning=tuning))


def about(artifact: Artifact, *arguments: Any, **options: Any) -> tuple[str, str, int]:
    with runtimes.open_artifact(artifact, *arguments, **options) as runtime:
        found = runtime.description
        return found.backend, found.device, found.threads


def test_what_an_artifact_was_tuned_for_is_the_default(onnx_artifact: Artifact, tmp_path: Path) -> None:
    usable = usable_processors()
    assert about(onnx_artifact) == ("onnxruntime", "cpu", usable)
    assert about(tuned(onnx_artifact)) == ("openvino", "cpu", 1)
    assert about(tuned(onnx_artifact), device="cpu") == ("openvino", "cpu", 1)
    assert about(tuned(onnx_artifact, threads=usable), threads=1) == ("openvino", "cpu", 1)
    artifact = tuned(copied(onnx_artifact, tmp_path))
    manifest_path(artifact.path).write_text(codec.dumps(artifact.manifest), encoding="utf-8")
    with runtimes.open(artifact.path) as runtime:
        assert runtime.description.backend == "openvino"
    assert {layer.operator for layer in runtimes.profile(artifact.path) if layer.weighted} >= {"Convolution"}


def test_a_backend_or_device_that_is_named_goes_before(onnx_artifact: Artifact) -> None:
    usable = usable_processors()
    assert about(tuned(onnx_artifact), "onnxruntime") == ("onnxruntime", "cpu", usable)
    assert about(tuned(onnx_artifact), "openvino") == ("openvino", "cpu", usable), "another's threads are not taken"
    assert about(tuned(onnx_artifact, "onnxruntime", "cuda"), device="cpu") == ("onnxruntime", "cpu", usable)


@pytest.mark.parametrize(("threads", "expected"), [(10_000, usable_processors()), (0, 1), (-3, 1)])
def test_tuned_threads_stay_within_what_is_there(onnx_artifact: Artifact, threads: int, expected: int) -> None:
    assert about(tuned(onnx_artifact, "onnxruntime", threads=threads)) == ("onnxruntime", "cpu", expected)


Install = Callable[..., None]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Makes it look as if the named backends' libraries alone were there."""

    rows = registry.all_backends()

    def only(*names: str) -> None:
        found = tuple(row if row.name in names else missing(row) for row in rows)
        monkeypatch.setattr(registry, "all_backends", lambda: found)

    def missing(row: Backend) -> Backend:
        return replace(row, missing=lambda: f"{row.name} is not installed (pip ...)")

    return only


def test_a_tuned_runtime_that_is_missing_is_named_with_the_way_out(onnx_artifact: Artifact, installed: Install) -> None:
    installed("onnxruntime")
    with pytest.raises(BackendUnavailableError) as caught:
        runtimes.open_artifact(tuned(onnx_artifact))
    assert str(caught.value) == (
        f"{onnx_artifact.path}: it is tuned for openvino, which cannot run here "
        "(openvino is not installed (pip ...); or name another: backend='onnxruntime')"
    )
    assert about(tuned(onnx_artifact), "onnxruntime")[0] == "onnxruntime"
    installed()
    with pytest.raises(BackendUnavailableError, match=r"openvino is not installed .*; or name another backend"):
        runtimes.open_artifact(tuned(onnx_artifact))


@pytest.mark.parametrize(("runtime", "device"), [("tensorflow", "cpu"), ("openvino", "npu"), ("pytorch", "cpu")])
def test_tuned_for_what_nobody_has(onnx_artifact: Artifact, runtime: str, device: str) -> None:
    with pytest.raises(CompatibilityError) as caught:
        runtimes.open_artifact(tuned(onnx_artifact, runtime, device))
    assert f"it is tuned for '{runtime}' on '{device}', which this rexport does not have" in str(caught.value)
    assert caught.value.hint == "pip install --upgrade rexport; or name another: backend='onnxruntime'"


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
    with pytest.raises(CompatibilityError) as caught:
        runtimes.open(half)
    assert str(caught.value) == (
        f"{half}: no backend runs it: onnxruntime: ONNX Runtime's CPU provider has no kernel for Conv in bfloat16: "
        "node 'conv1/Conv'; openvino: openvino is not installed (pip ...) "
        "(export it in another precision, or name another backend)"
    )
    installed("openvino")
    with runtimes.open(half) as runtime:
        assert runtime.description.backend == "openvino"


def test_when_all_refuse_each_reason_is_told(half: Path) -> None:
    model = onnx.load(half)
    model.opset_import[0].version = 999
    path = half.with_name("future.onnx")
    path.write_bytes(model.SerializeToString())
    with pytest.raises(CompatibilityError) as caught:
        runtimes.open(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: no backend runs it: onnxruntime: ONNX Runtime cannot run it: ")
    assert "; openvino: it is of IR version 10 and opset 999" in message
    assert message.endswith("(export it with an older opset)")


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
    with pytest.raises(IntegrityError, match="its bytes are not those that its manifest records"):
        runtimes.open(artifact.path)


def test_a_device_that_no_backend_has(onnx_artifact: Artifact, fake_artifact: FakeFactory) -> None:
    with pytest.raises(UsageError, match=r"no backend runs onnx files on 'tpu' \(one of cpu, cuda\)"):
        runtimes.open(onnx_artifact.path, device="tpu")
    with pytest.raises(UsageError, match=r"no backend runs fake files on 'cuda' \(one of cpu\)"):
        runtimes.open(fake_artifact().path, device="cuda")


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What the runtimes announce, each with its level."""
    lines: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(f"{record.levelname}: {record.getMessage()}")

    ear = Ear()
    logging.getLogger("rexport").addHandler(ear)
    yield lines
    logging.getLogger("rexport").removeHandler(ear)


def test_without_the_device_that_is_asked_for_the_processor_is_the_last_resort(
    onnx_artifact: Artifact, installed: Install, said: list[str]
) -> None:
    installed("openvino")
    with runtimes.open_artifact(onnx_artifact, device="cuda") as runtime:
        found = runtime.description
        assert (found.backend, found.device) == ("openvino", "cpu")
        absent = [row.name for row in registry.all_backends() if "cuda" in row.devices and "onnx" in row.formats]
        assert found.passed_over == tuple(f"{name}: {name} is not installed (pip ...)" for name in absent)
    assert "onnxruntime" in absent
    assert said == [f"WARNING: resnet20 in fp32: openvino on cpu in place of {step}" for step in found.passed_over]


def test_when_nothing_is_there_the_processor_neither(onnx_artifact: Artifact, installed: Install) -> None:
    installed()
    with pytest.raises(BackendUnavailableError) as caught:
        runtimes.open(onnx_artifact.path, device="cuda")
    message = str(caught.value)
    assert message.startswith("nothing here opens onnx files: ")
    for name in ("onnxruntime", "openvino"):
        assert message.count(f"{name}: {name} is not installed (pip ...)") == 1
    assert caught.value.exit_code == 5


def fakes(**opened: Callable[[Artifact, Options], Session] | str) -> tuple[Backend, ...]:
    """Backends of scripts by name, in this order: what opens them, or why they are missing. ``gpu...`` is on ``cuda``
    alone, ``cpu...`` on ``cpu``, any other on both."""
    rows = []
    for name, how in opened.items():
        devices = ("cpu",) if name.startswith("cpu") else ("cuda",) if name.startswith("gpu") else ("cpu", "cuda")
        row = replace(fake.BACKEND, name=name, devices=devices)
        rows.append(replace(row, missing=partial(str, how)) if isinstance(how, str) else replace(row, open=how))
    return tuple(rows)


working = fake.BACKEND.open
NO_DEVICE = BackendUnavailableError("no GPU", hint="a driver")
NOT_THIS = CompatibilityError("not this graph", hint="do that")


def test_each_step_down_is_told_with_its_reason(
    fake_artifact: FakeFactory, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    found = fakes(gpu1="no library (pip)", gpu2=refusing(NOT_THIS), both=refusing(NO_DEVICE), cpu1=working)
    monkeypatch.setattr(registry, "all_backends", lambda: found)
    artifact = fake_artifact()
    path, name = (
        artifact.path,
        f"{artifact.manifest.name} in {artifact.manifest.precision}" if artifact.manifest else "",
    )
    with pytest.raises(BackendUnavailableError) as caught:
        runtimes.open(path, device="cuda")
    assert caught.value is NO_DEVICE, "on the processor, a library that is there and broken is no step down"
    both = replace(found[2], open=on_cpu_alone)
    monkeypatch.setattr(registry, "all_backends", lambda: (*found[:2], both, found[3]))
    with runtimes.open(path, device="cuda") as runtime:
        about = runtime.description
    assert (about.backend, about.device) == ("fake", "cpu")
    assert about.passed_over == (
        "gpu1: no library (pip)",
        "gpu2 on cuda: not this graph",
        "both on cuda: no GPU (a driver)",
    )
    assert said == [f"WARNING: {name}: fake on cpu in place of {step}" for step in about.passed_over]


def on_cpu_alone(artifact: Artifact, options: Options) -> Session:
    if options.device != "cpu":
        raise NO_DEVICE
    return working(artifact, options)


@pytest.mark.parametrize("error", [ArtifactError("broken"), ResourceError("full"), UsageError("wrong")])
def test_what_is_no_lack_of_a_device_ends_the_search_there_too(
    error: Exception, fake_artifact: FakeFactory, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    monkeypatch.setattr(registry, "all_backends", lambda: fakes(gpu=refusing(error), cpu=working))
    with pytest.raises(type(error), match=str(error)):
        runtimes.open(fake_artifact().path, device="cuda")
    assert said == []


@pytest.mark.parametrize("error", [NO_DEVICE, NOT_THIS])
def test_a_backend_that_is_named_never_steps_down(
    error: RexportError, fake_artifact: FakeFactory, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    monkeypatch.setattr(registry, "all_backends", lambda: fakes(both=refusing(error), cpu=working))
    with pytest.raises(type(error)) as caught:
        runtimes.open(fake_artifact().path, "both", device="cuda")
    assert caught.value is error
    assert said == []


def test_when_all_refuse_on_all_devices_each_reason_is_told(
    fake_artifact: FakeFactory, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    found = fakes(gpu="no library (pip)", both=refusing(NOT_THIS), cpu="not installed")
    monkeypatch.setattr(registry, "all_backends", lambda: found)
    with pytest.raises(CompatibilityError) as caught:
        runtimes.open(fake_artifact().path, device="cuda")
    assert "no backend runs it: gpu: no library (pip); both on cuda: not this graph; both on cpu: not this graph; " in (
        str(caught.value)
    )
    assert str(caught.value).endswith("cpu: not installed (do that)")
    assert said == [], "the error says it all"


@pytest.mark.parametrize("backend", [None, "auto", "gpu"])
def test_what_runs_on_a_gpu_alone_needs_no_device_named(
    backend: str | None, fake_artifact: FakeFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "all_backends", lambda: fakes(gpu=working))
    assert about(fake_artifact(), backend) == ("fake", "cuda", usable_processors())
    with pytest.raises(UsageError, match=r"on 'cpu' \(one of cuda\)|has no device 'cpu' \(one of cuda\)"):
        runtimes.open(fake_artifact().path, backend, device="cpu")


def test_beside_others_it_is_chosen_by_its_name_alone(
    fake_artifact: FakeFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "all_backends", lambda: fakes(gpu=working, both=working))
    for backend, device in ((None, "cpu"), ("auto", "cpu"), ("both", "cpu"), ("gpu", "cuda")):
        assert about(fake_artifact(), backend)[1] == device


def test_on_the_processor_a_library_that_is_not_installed_is_no_news(
    fake_artifact: FakeFactory, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    found = fakes(cpu1="not installed", cpu2=refusing(NOT_THIS), cpu3=working)
    monkeypatch.setattr(registry, "all_backends", lambda: found)
    artifact = fake_artifact()
    name = f"{artifact.manifest.name} in {artifact.manifest.precision}" if artifact.manifest else ""
    with runtimes.open(artifact.path) as runtime:
        assert runtime.description.passed_over == ("cpu1: not installed", "cpu2: not this graph")
    assert said == [f"WARNING: {name}: fake on cpu in place of cpu2: not this graph"]


def test_auto_is_the_most_preferred_whatever_it_was_tuned_for(onnx_artifact: Artifact) -> None:
    assert about(tuned(onnx_artifact)) == ("openvino", "cpu", 1)
    assert about(tuned(onnx_artifact), "auto") == ("onnxruntime", "cpu", usable_processors())
    with runtimes.open(onnx_artifact.path, "auto") as runtime:
        assert runtime.description.passed_over == ()


def test_graphs_are_asked_for_where_a_run_is_and_not_where_its_steps_are(
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
    code = "import sys, runtimes; runtimes.open(sys.argv[1], device='cuda').close()"
    done = python("-W", "error", "-c", code, str(onnx_artifact.path))
    assert (done.code, done.stdout) == (0, "")
    assert done.stderr.startswith("resnet20 in fp32: onnxruntime on cpu in place of tensorrt: ")
    assert "; onnxruntime on cuda: " not in done.stderr, "each step stands in a line of its own"
    assert "resnet20 in fp32: onnxruntime on cpu in place of onnxruntime on cuda: " in done.stderr


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
        with pytest.raises(InputError, match=r"got dtype float32 \(this artifact takes raw pixels, 0 to 255"):
            runtime.infer({"input": images.astype(np.float32)})
        with pytest.raises(InputError, match="looks like channels first: pass array"):
            runtime.infer({"input": images.transpose(0, 3, 1, 2)})
    convolutions = [layer for layer in runtimes.profile(pixels, backend=backend) if layer.weighted]
    assert {layer.precision for layer in convolutions} == {"float32"}


@pytest.mark.parametrize("element", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_the_normalisations_float32_does_not_make_a_narrow_graph_wide(element: int, tmp_path: Path) -> None:
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
def test_a_type_that_numpy_lacks_is_refused_and_not_called_another(tmp_path: Path, backend: str, place: str) -> None:
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
    with pytest.raises(CompatibilityError, match=r"is of type bf16, which|has the type tensor\(bfloat16\), which"):
        runtimes.open(path, backend)
